//! Talking to the host: the GHCB MSR protocol (GHCB specification 2.3.1), and the GHCB page (2.6).

use crate::cpu::{self, MSR_GHCB, PageSize, clear_page, read_msr, vmgexit, write_msr};
use crate::layout::PAGE_SIZE;
use crate::memory;
use crate::terminate::{Reason, check};
use core::cell::UnsafeCell;

/// The GHCB page. It belongs to the image, so it is private and validated until `share_ghcb_page`.
#[repr(C, align(4096))]
struct GhcbPage(UnsafeCell<[u8; PAGE_SIZE as usize]>);
// SAFETY: there is one processor, and all accesses are volatile.
unsafe impl Sync for GhcbPage {}
#[unsafe(no_mangle)]
static GHCB_PAGE: GhcbPage = GhcbPage(UnsafeCell::new([0; PAGE_SIZE as usize]));

pub fn page_address() -> u64 {
    GHCB_PAGE.0.get() as u64
}

/// Version of the protocol and of the page: 2 is the one that knows SNP.
const PROTOCOL: u64 = 2;

// Requests of the MSR protocol are in bits 11:0, responses too.
const SEV_INFORMATION_REQUEST: u64 = 0x002;
const SEV_INFORMATION: u64 = 0x001;
const REGISTER_GHCB_REQUEST: u64 = 0x012;
const REGISTER_GHCB: u64 = 0x013;
const PAGE_STATE_CHANGE_REQUEST: u64 = 0x014;
const PAGE_STATE_CHANGE: u64 = 0x015;
const RUN_VMPL_REQUEST: u64 = 0x016;
const RUN_VMPL: u64 = 0x017;
const HYPERVISOR_FEATURES_REQUEST: u64 = 0x080;
const HYPERVISOR_FEATURES: u64 = 0x081;

const FEATURE_SNP: u64 = 1 << 0;
const FEATURE_AP_CREATION: u64 = 1 << 1;
const FEATURE_MULTI_VMPL: u64 = 1 << 5;
const FEATURES_NEEDED: u64 = FEATURE_SNP | FEATURE_AP_CREATION | FEATURE_MULTI_VMPL;

const PAGE_SHARED: u64 = 2;

/// One request by the MSR protocol: writes the GHCB MSR, leaves, returns what the host put there.
#[inline(never)]
fn msr_request(request: u64) -> u64 {
    write_msr(MSR_GHCB, request);
    vmgexit();
    read_msr(MSR_GHCB)
}

/// Checks that the host speaks our version.
#[inline(never)]
pub fn negotiate_version() {
    let answer = msr_request(SEV_INFORMATION_REQUEST);
    let maximum = answer >> 48;
    let minimum = answer >> 32 & 0xffff;
    check(answer & 0xfff == SEV_INFORMATION, Reason::ProtocolVersion);
    check(minimum <= PROTOCOL && PROTOCOL <= maximum, Reason::ProtocolVersion);
}

/// Checks that the host has what the later steps need, and returns its feature bits.
#[inline(never)]
pub fn query_hypervisor_features() -> u64 {
    let answer = msr_request(HYPERVISOR_FEATURES_REQUEST);
    check(answer & 0xfff == HYPERVISOR_FEATURES, Reason::HypervisorFeatures);
    let features = answer >> 12;
    check(features & FEATURES_NEEDED == FEATURES_NEEDED, Reason::HypervisorFeatures);
    features
}

/// Makes the GHCB page shared: gives up its validation, asks the host to change its state, maps it without
/// the C-bit.
#[inline(never)]
pub fn share_ghcb_page() {
    let page = page_address();
    clear_page(page);
    memory::pvalidate_page(page, PageSize::Small, false);
    let answer = msr_request(PAGE_STATE_CHANGE_REQUEST | page | PAGE_SHARED << 52);
    check(answer == PAGE_STATE_CHANGE, Reason::PageStateChange);
    memory::map_shared(page);
    clear_page(page);
}

/// Tells the host which page the GHCB is; an SNP host accepts no other.
#[inline(never)]
pub fn register_ghcb() {
    let page = page_address();
    let answer = msr_request(REGISTER_GHCB_REQUEST | page);
    check(answer == REGISTER_GHCB | page, Reason::RegisterGhcb);
}

/// Lets the same virtual processor run at a less privileged VMPL; comes back when that one gives up control.
#[inline(never)]
pub fn run_vmpl(vmpl: u64) {
    let answer = msr_request(RUN_VMPL_REQUEST | vmpl << 32);
    check(answer == RUN_VMPL, Reason::RunVmpl);
}

// Offsets in the GHCB page.
const RAX: u64 = 0x1f8;
const RCX: u64 = 0x308;
const RDX: u64 = 0x310;
const SW_EXIT_CODE: u64 = 0x390;
const SW_EXIT_INFO_1: u64 = 0x398;
const SW_EXIT_INFO_2: u64 = 0x3a0;
const VALID_BITMAP: u64 = 0x3f0;
const PROTOCOL_VERSION: u64 = 0xffa;
const USAGE: u64 = 0xffc;

const EXIT_IOIO: u64 = 0x7b;
const EXIT_MSR: u64 = 0x7c;
const EXIT_AP_CREATION: u64 = 0x8000_0013;

/// Writes a field and says so in the valid bitmap: the host may look at no other.
fn set_field(offset: u64, value: u64) {
    cpu::write(page_address() + offset, value);
    let word = page_address() + VALID_BITMAP + (offset / 8 / 64) * 8;
    cpu::write(word, cpu::read::<u64>(word) | 1 << (offset / 8 % 64));
}

/// A field of the host's answer, which must be marked valid.
fn field(offset: u64) -> u64 {
    let word = page_address() + VALID_BITMAP + (offset / 8 / 64) * 8;
    check(cpu::read::<u64>(word) & 1 << (offset / 8 % 64) != 0, Reason::GhcbRequest);
    cpu::read(page_address() + offset)
}

fn begin_request() {
    cpu::write(page_address() + VALID_BITMAP, 0u64);
    cpu::write(page_address() + VALID_BITMAP + 8, 0u64);
}

/// One non-automatic exit. The registers it takes were set before.
#[inline(never)]
fn exit_to_host(code: u64, info_1: u64, info_2: u64) {
    set_field(SW_EXIT_CODE, code);
    set_field(SW_EXIT_INFO_1, info_1);
    set_field(SW_EXIT_INFO_2, info_2);
    cpu::write(page_address() + PROTOCOL_VERSION, PROTOCOL as u16);
    cpu::write(page_address() + USAGE, 0u32);
    write_msr(MSR_GHCB, page_address());
    vmgexit();
    // 0: done; anything else is an error or an exception to raise, and this guest causes neither.
    check(field(SW_EXIT_INFO_1) & 0xffff_ffff == 0, Reason::GhcbRequest);
}

// EXITINFO1 of an IOIO exit (APM volume 2, figure 15-2).
const IO_IN: u64 = 1;
const IO_8: u64 = 1 << 4;
const IO_32: u64 = 1 << 6;

#[inline(never)]
pub fn write_port_8(port: u16, value: u8) {
    begin_request();
    set_field(RAX, value as u64);
    exit_to_host(EXIT_IOIO, (port as u64) << 16 | IO_8, 0);
}

#[inline(never)]
pub fn write_port_32(port: u16, value: u32) {
    begin_request();
    set_field(RAX, value as u64);
    exit_to_host(EXIT_IOIO, (port as u64) << 16 | IO_32, 0);
}

#[inline(never)]
pub fn read_port_8(port: u16) -> u8 {
    begin_request();
    exit_to_host(EXIT_IOIO, (port as u64) << 16 | IO_8 | IO_IN, 0);
    field(RAX) as u8
}

/// Has the host read a model-specific register for us.
#[inline(never)]
pub fn read_msr_through_host(register: u32) -> u64 {
    begin_request();
    set_field(RCX, register as u64);
    exit_to_host(EXIT_MSR, 0, 0);
    field(RDX) << 32 | field(RAX) & 0xffff_ffff
}

/// Tells the host where the save area of this virtual processor is for `vmpl`, to be used when it is asked to
/// run it (request type 0: not now).
#[inline(never)]
pub fn register_vmsa(vmsa: u64, vmpl: u64, apic_id: u64, sev_features: u64) {
    begin_request();
    set_field(RAX, sev_features);
    exit_to_host(EXIT_AP_CREATION, apic_id << 32 | vmpl << 16, vmsa);
}

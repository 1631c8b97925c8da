//! The VMPL2 guest seen from the SVSM: its pages, its save area, and the calls it makes.

use crate::broken::{self, Broken};
use crate::cpu;
use crate::ghcb;
use crate::layout::{
    GUEST_CALLING_AREA, GUEST_PD, GUEST_PDPT, GUEST_PML4, GUEST_PT_CODE, GUEST_PT_DATA, GUEST_STACK, GUEST_VMSA,
    LARGE_PAGE_SIZE, PAGE_SIZE,
};
use crate::memory::{EXECUTE_SUPERVISOR, READ, WRITE, c_bit, grant_page, make_vmsa_page};
use crate::terminate::{Reason, check};

pub const GUEST_VMPL: u64 = 2;
const APIC_ID: u64 = 0;
/// SNPActive, and nothing else.
const SEV_FEATURES: u64 = 1;

unsafe extern "C" {
    /// The page of the guest's code (linker script, guest.s).
    static guest_code: [u8; PAGE_SIZE as usize];
    fn guest_entry();
}

fn code_page() -> u64 {
    (&raw const guest_code) as u64
}

// Present, accessed, dirty: the processor has nothing to write there.
const TABLE_ENTRY: u64 = 0x63;
const CODE_ENTRY: u64 = 0x61;
const DATA_ENTRY: u64 = 0x63;

/// Page tables that map the guest's three pages and nothing else, each at its guest-physical address.
#[inline(never)]
pub fn build_guest_page_tables() {
    let c = c_bit();
    cpu::write(GUEST_PML4, GUEST_PDPT | c | TABLE_ENTRY);
    cpu::write(GUEST_PDPT, GUEST_PD | c | TABLE_ENTRY);
    cpu::write(GUEST_PD, GUEST_PT_CODE | c | TABLE_ENTRY);
    cpu::write(GUEST_PD + GUEST_STACK / LARGE_PAGE_SIZE * 8, GUEST_PT_DATA | c | TABLE_ENTRY);
    map(GUEST_PT_CODE, code_page(), CODE_ENTRY | c);
    map(GUEST_PT_DATA, GUEST_STACK, DATA_ENTRY | c);
    map(GUEST_PT_DATA, GUEST_CALLING_AREA, DATA_ENTRY | c);
}

fn map(table: u64, page: u64, bits: u64) {
    cpu::write(table + page % LARGE_PAGE_SIZE / PAGE_SIZE * 8, page | bits);
}

/// Step 7: gives VMPL2 the guest's pages, each with no more than it needs.
#[inline(never)]
pub fn grant_guest_pages() {
    if broken::is(Broken::WithoutRmpadjust) {
        return;
    }
    grant_page(code_page(), GUEST_VMPL, READ | EXECUTE_SUPERVISOR);
    let mut table = GUEST_PML4;
    while table <= GUEST_PT_DATA {
        grant_page(table, GUEST_VMPL, READ | WRITE);
        table += PAGE_SIZE;
    }
    grant_page(GUEST_STACK, GUEST_VMPL, READ | WRITE);
    grant_page(GUEST_CALLING_AREA, GUEST_VMPL, READ | WRITE);
}

// Offsets in the save area (APM volume 2, table B-4).
const VMSA_ES: u64 = 0x00;
const VMSA_CS: u64 = 0x10;
const VMSA_SS: u64 = 0x20;
const VMSA_DS: u64 = 0x30;
const VMSA_LDTR: u64 = 0x70;
const VMSA_TR: u64 = 0x90;
const VMSA_VMPL: u64 = 0xca;
const VMSA_EFER: u64 = 0xd0;
const VMSA_CR4: u64 = 0x148;
const VMSA_CR3: u64 = 0x150;
const VMSA_CR0: u64 = 0x158;
const VMSA_DR7: u64 = 0x160;
const VMSA_DR6: u64 = 0x168;
const VMSA_RFLAGS: u64 = 0x170;
const VMSA_RIP: u64 = 0x178;
const VMSA_RSP: u64 = 0x1d8;
const VMSA_RAX: u64 = 0x1f8;
const VMSA_PAT: u64 = 0x268;
const VMSA_RCX: u64 = 0x308;
const VMSA_RBX: u64 = 0x318;
const VMSA_RDI: u64 = 0x338;
const VMSA_SEV_FEATURES: u64 = 0x3b0;
const VMSA_EXIT_CODE: u64 = 0x3c0;
const VMSA_XCR0: u64 = 0x3e8;
const VMSA_MXCSR: u64 = 0x408;
const VMSA_FCW: u64 = 0x410;

const EFER_LME_LMA: u64 = 0x500;
const EFER_SVME: u64 = 0x1000;

/// The registers the guest starts with, in its save area.
#[inline(never)]
pub fn build_guest_vmsa() {
    set_segment(VMSA_ES, 0x10, 0xc93, 0xffff_ffff);
    set_segment(VMSA_CS, 0x08, 0xa9b, 0xffff_ffff);
    set_segment(VMSA_SS, 0x10, 0xc93, 0xffff_ffff);
    set_segment(VMSA_DS, 0x10, 0xc93, 0xffff_ffff);
    set_segment(VMSA_LDTR, 0, 0x82, 0xffff);
    set_segment(VMSA_TR, 0, 0x8b, 0xffff);
    cpu::write(GUEST_VMSA + VMSA_VMPL, GUEST_VMPL as u8);
    set(VMSA_EFER, EFER_LME_LMA); // without SVME it cannot run yet
    set(VMSA_CR4, 0x60); // MCE, PAE
    set(VMSA_CR3, GUEST_PML4);
    set(VMSA_CR0, 0x8001_0033); // PG, WP, NE, ET, MP, PE
    set(VMSA_DR7, 0x400);
    set(VMSA_DR6, 0xffff_0ff0);
    set(VMSA_RFLAGS, 2);
    set(VMSA_RIP, guest_entry as *const () as u64);
    set(VMSA_RSP, GUEST_STACK + PAGE_SIZE);
    set(VMSA_RDI, GUEST_CALLING_AREA);
    set(VMSA_PAT, 0x0007_0406_0007_0406);
    set(VMSA_SEV_FEATURES, SEV_FEATURES);
    set(VMSA_XCR0, 1);
    cpu::write(GUEST_VMSA + VMSA_MXCSR, 0x1f80u32);
    cpu::write(GUEST_VMSA + VMSA_FCW, 0x37fu16);
}

fn set(offset: u64, value: u64) {
    cpu::write(GUEST_VMSA + offset, value);
}

fn get(offset: u64) -> u64 {
    cpu::read(GUEST_VMSA + offset)
}

fn set_segment(offset: u64, selector: u16, attributes: u16, limit: u32) {
    cpu::write(GUEST_VMSA + offset, selector);
    cpu::write(GUEST_VMSA + offset + 2, attributes);
    cpu::write(GUEST_VMSA + offset + 4, limit);
}

/// Makes the save area one, and tells the host of it.
#[inline(never)]
pub fn register_guest_vmsa() {
    make_vmsa_page(GUEST_VMSA, GUEST_VMPL);
    ghcb::register_vmsa(GUEST_VMSA, GUEST_VMPL, APIC_ID, SEV_FEATURES);
}

const EXIT_VMGEXIT: u64 = 0x403;

/// Runs the guest until it gives up control. Its save area can be entered (EFER.SVME) only meanwhile: the
/// host must not run it while the SVSM looks at its registers.
#[inline(never)]
pub fn run_guest() {
    set(VMSA_EFER, get(VMSA_EFER) | EFER_SVME);
    ghcb::run_vmpl(GUEST_VMPL);
    set(VMSA_EFER, get(VMSA_EFER) & !EFER_SVME);
    check(get(VMSA_EXIT_CODE) == EXIT_VMGEXIT, Reason::GuestExit);
}

const CALL_QUERY_PROTOCOL: u64 = 6; // protocol 0 (core) << 32 | call 6
const SVSM_SUCCESS: u64 = 0;
const CORE_PROTOCOL: u64 = 0;

/// Step 8: serves the one call the guest makes, and leaves the answer in its registers. Returns the call (RAX).
#[inline(never)]
pub fn serve_request() -> u64 {
    let pending = cpu::read::<u8>(GUEST_CALLING_AREA);
    check(pending == 1, Reason::GuestRequest);
    let call = get(VMSA_RAX);
    check(call == CALL_QUERY_PROTOCOL, Reason::GuestRequest);
    let (rax, rcx) = query_protocol(get(VMSA_RCX));
    set(VMSA_RCX, rcx);
    set(VMSA_RAX, rax);
    cpu::write(GUEST_CALLING_AREA, 0u8);
    call
}

/// SVSM_CORE_QUERY_PROTOCOL: protocol in RCX[63:32], version in RCX[31:0]. Returns RAX, and in RCX the
/// versions the SVSM has (maximum << 32 | minimum), or 0 if it has not that one.
#[inline(never)]
fn query_protocol(asked: u64) -> (u64, u64) {
    let protocol = asked >> 32;
    let version = asked & 0xffff_ffff;
    if protocol == CORE_PROTOCOL && version == 1 {
        return (SVSM_SUCCESS, 1 << 32 | 1);
    }
    (SVSM_SUCCESS, 0)
}

const RESULT_DONE: u64 = 0x600d;

/// Checks that the guest was content with the answer and has nothing more to ask.
#[inline(never)]
pub fn check_guest_finished() {
    check(cpu::read::<u8>(GUEST_CALLING_AREA) == 0, Reason::GuestResult);
    check(get(VMSA_RBX) == RESULT_DONE, Reason::GuestResult);
}

//! #VC, the exception that tells an SEV-ES guest of an intercepted instruction (APM volume 2, 15.35.5).

use crate::cpu::{self, CpuidResult, MSR_APIC_BASE};
use crate::ghcb;
use crate::launch;
use crate::terminate::{Reason, check, terminate};
use core::sync::atomic::{AtomicU32, Ordering};

/// What trap_common (entry.s) leaves on the stack.
#[repr(C)]
pub struct TrapFrame {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    rbp: u64,
    rdi: u64,
    rsi: u64,
    rdx: u64,
    rcx: u64,
    rbx: u64,
    rax: u64,
    vector: u64,
    error_code: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

const VECTOR_VC: u64 = 29;

// The error code of a #VC is the exit code of the intercept.
const EXIT_CPUID: u64 = 0x72;
const EXIT_MSR: u64 = 0x7c;
const PAGE_NOT_VALIDATED: u64 = 0x404;

const CPUID_LENGTH: u64 = 2; // 0F A2
const RDMSR_LENGTH: u64 = 2; // 0F 32

static HANDLED: AtomicU32 = AtomicU32::new(0);

#[unsafe(no_mangle)]
extern "C" fn handle_trap(frame: &mut TrapFrame) {
    check(frame.vector == VECTOR_VC, Reason::Exception(frame.vector));
    match frame.error_code {
        EXIT_CPUID => emulate_cpuid(frame),
        EXIT_MSR => emulate_rdmsr(frame),
        PAGE_NOT_VALIDATED => terminate(Reason::PageNotValidated),
        _ => terminate(Reason::UnhandledVc),
    }
    HANDLED.store(HANDLED.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// CPUID is answered from the CPUID page: the secure processor has checked it, the host is not asked.
#[inline(never)]
fn emulate_cpuid(frame: &mut TrapFrame) {
    let result = launch::cpuid_page_entry(frame.rax as u32, frame.rcx as u32);
    frame.rax = result.eax as u64;
    frame.rbx = result.ebx as u64;
    frame.rcx = result.ecx as u64;
    frame.rdx = result.edx as u64;
    frame.rip += CPUID_LENGTH;
}

/// RDMSR goes to the host through the GHCB page. (This guest writes no intercepted register.)
#[inline(never)]
fn emulate_rdmsr(frame: &mut TrapFrame) {
    let value = ghcb::read_msr_through_host(frame.rcx as u32);
    frame.rax = value & 0xffff_ffff;
    frame.rdx = value >> 32;
    frame.rip += RDMSR_LENGTH;
}

/// Step 5: executes two intercepted instructions on purpose and checks what they return. Returns the APIC base.
#[inline(never)]
pub fn take_vc_exceptions(c_bit_position: u32) -> u64 {
    let before = HANDLED.load(Ordering::Relaxed);
    let CpuidResult { ebx, .. } = cpu::cpuid(0x8000_001f, 0);
    check(HANDLED.load(Ordering::Relaxed) == before + 1, Reason::VcNotTaken);
    check(ebx & 0x3f == c_bit_position, Reason::VcResult);

    let apic_base = cpu::read_msr(MSR_APIC_BASE);
    check(HANDLED.load(Ordering::Relaxed) == before + 2, Reason::VcNotTaken);
    check(apic_base & 0xf_ffff_f000 == 0xfee0_0000, Reason::VcResult);
    apic_base
}

//! The instructions Rust has no word for.

use core::arch::asm;

pub const MSR_APIC_BASE: u32 = 0x1b;
pub const MSR_GHCB: u32 = 0xc001_0130;

/// RDMSR. Where the host intercepts the register, the guest gets a #VC instead.
#[inline(never)]
pub fn read_msr(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading a register changes nothing.
    unsafe { asm!("rdmsr", in("ecx") register, out("eax") low, out("edx") high, options(nostack)) };
    (high as u64) << 32 | low as u64
}

pub fn write_msr(register: u32, value: u64) {
    // SAFETY: the callers write only the GHCB register.
    unsafe {
        asm!("wrmsr", in("ecx") register, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack))
    };
}

/// VMGEXIT: leave to the host on purpose.
pub fn vmgexit() {
    // SAFETY: what the host may change is the GHCB page, which is only read and written as volatile.
    unsafe { asm!("rep vmmcall") };
}

pub struct CpuidResult {
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}

/// CPUID, which is always intercepted in an SNP guest: #VC with exit code 0x72.
#[inline(never)]
pub fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    let (eax, ebx, ecx, edx): (u32, u32, u32, u32);
    // SAFETY: RBX is saved, since the compiler reserves it.
    unsafe {
        asm!("mov {saved:r}, rbx", "cpuid", "xchg {saved:r}, rbx", saved = out(reg) ebx,
             inout("eax") leaf => eax, inout("ecx") subleaf => ecx, out("edx") edx)
    };
    CpuidResult { eax, ebx, ecx, edx }
}

#[derive(Clone, Copy)]
pub enum PageSize {
    Small = 0,
    Large = 1,
}

/// What PVALIDATE found: EAX, and the carry flag, which says that the entry was in that state already.
pub struct Pvalidate {
    pub code: u32,
    pub unchanged: bool,
}

pub fn pvalidate(address: u64, size: PageSize, validate: bool) -> Pvalidate {
    let code: u64;
    let carry: u8;
    // SAFETY: the callers pass pages of their own, which they do not hold references into.
    unsafe {
        asm!("pvalidate", "setc {carry}", carry = out(reg_byte) carry,
             inout("rax") address => code, in("ecx") size as u32, in("edx") validate as u32, options(nostack))
    };
    Pvalidate { code: code as u32, unchanged: carry != 0 }
}

/// RMPADJUST on a 4 KiB page; returns EAX, 0 for success.
pub fn rmpadjust(address: u64, attributes: u64) -> u32 {
    let code: u64;
    // SAFETY: changes only what less privileged VMPLs may do.
    unsafe {
        asm!("rmpadjust", inout("rax") address => code, in("rcx") PageSize::Small as u64, in("rdx") attributes,
             options(nostack))
    };
    code as u32
}

pub fn invalidate_page(address: u64) {
    // SAFETY: forgets a translation; the next access walks the page tables.
    unsafe { asm!("invlpg [{}]", in(reg) address, options(nostack)) };
}

pub fn halt() {
    // SAFETY: waits.
    unsafe { asm!("hlt", options(nomem, nostack)) };
}

/// Volatile access by address. Everything in this guest that is not a local variable goes this way.
pub fn read<T: Copy>(address: u64) -> T {
    // SAFETY: the callers pass addresses of layout.rs, aligned for T.
    unsafe { core::ptr::read_volatile(address as *const T) }
}

pub fn write<T>(address: u64, value: T) {
    // SAFETY: as above.
    unsafe { core::ptr::write_volatile(address as *mut T, value) };
}

/// Clears one page (`rep stosq`).
pub fn clear_page(address: u64) {
    // SAFETY: as above.
    unsafe {
        asm!("rep stosq", inout("rdi") address => _, inout("rcx") 512u64 => _, in("rax") 0u64, options(nostack))
    };
}

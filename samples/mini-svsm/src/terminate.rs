//! Asking the host to end the guest: GHCB MSR protocol 0x100 (GHCB specification 2.3.1).

use crate::cpu::{MSR_GHCB, halt, vmgexit, write_msr};

const TERMINATION_REQUEST: u64 = 0x100;

/// The reason set of the GHCB specification itself.
const SET_GHCB: u64 = 0;
/// The reason set of this guest; README.md lists the codes.
const SET_MINI_SVSM: u64 = 7;

#[derive(Clone, Copy)]
pub enum Reason {
    // Set 0.
    ProtocolVersion,
    HypervisorFeatures,
    // Set 7. Codes 1 and 2 are used by entry.s.
    RegisterGhcb,
    PageStateChange,
    GhcbRequest,
    /// PVALIDATE's code in the low digit.
    Pvalidate(u32),
    PvalidateUnchanged,
    /// RMPADJUST's code in the low digit.
    Rmpadjust(u32),
    Exception(u64),
    PageNotValidated,
    UnhandledVc,
    VcNotTaken,
    VcResult,
    RunVmpl,
    GuestExit,
    GuestRequest,
    GuestResult,
    LaunchParameters,
    Panic,
    MemoryContents,
}

impl Reason {
    fn set_and_code(self) -> (u64, u64) {
        match self {
            Reason::ProtocolVersion => (SET_GHCB, 1),
            Reason::HypervisorFeatures => (SET_GHCB, 2),
            Reason::RegisterGhcb => (SET_MINI_SVSM, 0x10),
            Reason::PageStateChange => (SET_MINI_SVSM, 0x11),
            Reason::GhcbRequest => (SET_MINI_SVSM, 0x12),
            Reason::Pvalidate(code) => (SET_MINI_SVSM, 0x20 | (code as u64 & 0xf)),
            Reason::PvalidateUnchanged => (SET_MINI_SVSM, 0x2f),
            Reason::Rmpadjust(code) => (SET_MINI_SVSM, 0x30 | (code as u64 & 0xf)),
            Reason::Exception(vector) => (SET_MINI_SVSM, 0x40 | (vector & 0x1f)),
            Reason::PageNotValidated => (SET_MINI_SVSM, 0x60),
            Reason::UnhandledVc => (SET_MINI_SVSM, 0x61),
            Reason::VcNotTaken => (SET_MINI_SVSM, 0x62),
            Reason::VcResult => (SET_MINI_SVSM, 0x63),
            Reason::RunVmpl => (SET_MINI_SVSM, 0x70),
            Reason::GuestExit => (SET_MINI_SVSM, 0x71),
            Reason::GuestRequest => (SET_MINI_SVSM, 0x72),
            Reason::GuestResult => (SET_MINI_SVSM, 0x73),
            Reason::LaunchParameters => (SET_MINI_SVSM, 0x80),
            Reason::Panic => (SET_MINI_SVSM, 0x81),
            Reason::MemoryContents => (SET_MINI_SVSM, 0x82),
        }
    }
}

/// Does not come back, whatever the host does.
#[inline(never)]
pub fn terminate(reason: Reason) -> ! {
    let (set, code) = reason.set_and_code();
    write_msr(MSR_GHCB, TERMINATION_REQUEST | set << 12 | code << 16);
    vmgexit();
    loop {
        halt();
    }
}

#[inline(never)]
pub fn check(good: bool, reason: Reason) {
    if !good {
        terminate(reason);
    }
}

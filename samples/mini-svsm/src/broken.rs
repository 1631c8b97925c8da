//! The variants that are broken on purpose: one word of the image says which step to get wrong. So all of
//! them have the same code at the same addresses, and mini-svsm.elf has the symbols of each.

#[derive(Clone, Copy, PartialEq)]
#[allow(dead_code)] // each build names one
#[repr(u32)]
pub enum Broken {
    Nothing = 0,
    WithoutPvalidate = 1,
    WrongPageSize = 2,
    UnregisteredGhcb = 3,
    WithoutRmpadjust = 4,
}

const THIS_BUILD: Broken = if cfg!(broken = "no-pvalidate") {
    Broken::WithoutPvalidate
} else if cfg!(broken = "wrong-page-size") {
    Broken::WrongPageSize
} else if cfg!(broken = "unregistered-ghcb") {
    Broken::UnregisteredGhcb
} else if cfg!(broken = "no-rmpadjust") {
    Broken::WithoutRmpadjust
} else {
    Broken::Nothing
};

#[unsafe(no_mangle)]
#[unsafe(link_section = ".data.broken")]
static BROKEN: u32 = THIS_BUILD as u32;

pub fn is(what: Broken) -> bool {
    // SAFETY: a plain load, volatile so that every variant has the code of all.
    unsafe { core::ptr::read_volatile(&raw const BROKEN) == what as u32 }
}

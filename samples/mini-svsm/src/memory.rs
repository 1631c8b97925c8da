//! Validation (PVALIDATE), the one shared mapping, and VMPL permissions (RMPADJUST).

use crate::broken::{self, Broken};
use crate::cpu::{self, PageSize, clear_page, invalidate_page};
use crate::layout::{HEAP, LARGE_PAGE_SIZE, PAGE_SIZE, POOL, POOL_PAGES};
use crate::terminate::{Reason, check, terminate};

/// PVALIDATE's answer when the reverse map has another page size than the guest asked for.
pub const FAIL_SIZE_MISMATCH: u32 = 6;

unsafe extern "C" {
    /// The page table of the first 2 MiB (entry.s).
    static mut boot_pt: [u64; 512];
}

static C_BIT: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);

pub fn set_c_bit(position: u32) {
    C_BIT.store(1 << position, core::sync::atomic::Ordering::Relaxed);
}

/// The bit of a page table entry that makes a mapping private.
pub fn c_bit() -> u64 {
    C_BIT.load(core::sync::atomic::Ordering::Relaxed)
}

/// Validates one page, or takes its validation back. The page must have been in the other state: a page
/// that is validated already could be one the host has put there twice.
#[inline(never)]
pub fn pvalidate_page(address: u64, size: PageSize, validate: bool) {
    let result = cpu::pvalidate(address, size, validate);
    check(result.code == 0, Reason::Pvalidate(result.code));
    check(!result.unchanged, Reason::PvalidateUnchanged);
}

/// Step 4: validates the memory that the launch did not, and uses it. Returns whether the heap is one large page.
#[inline(never)]
pub fn validate_memory() -> bool {
    let mut large = false;
    if !broken::is(Broken::WithoutPvalidate) {
        large = validate_heap();
        validate_pool();
    }
    use_page(HEAP);
    use_page(HEAP + LARGE_PAGE_SIZE - PAGE_SIZE);
    let mut page = POOL;
    while page < POOL + POOL_PAGES * PAGE_SIZE {
        use_page(page);
        page += PAGE_SIZE;
    }
    large
}

/// 2 MiB with one PVALIDATE where the host backs them with a large page, in 4 KiB pages otherwise.
#[inline(never)]
fn validate_heap() -> bool {
    let result = cpu::pvalidate(HEAP, PageSize::Large, true);
    if result.code == FAIL_SIZE_MISMATCH {
        let mut page = HEAP;
        while page < HEAP + LARGE_PAGE_SIZE {
            pvalidate_page(page, PageSize::Small, true);
            page += PAGE_SIZE;
        }
        return false;
    }
    check(result.code == 0, Reason::Pvalidate(result.code));
    check(!result.unchanged, Reason::PvalidateUnchanged);
    true
}

#[inline(never)]
fn validate_pool() {
    if broken::is(Broken::WrongPageSize) {
        // The region holds pages of the launch: its reverse map entries are of 4 KiB.
        pvalidate_page(POOL, PageSize::Large, true);
        return;
    }
    let mut page = POOL;
    while page < POOL + POOL_PAGES * PAGE_SIZE {
        pvalidate_page(page, PageSize::Small, true);
        page += PAGE_SIZE;
    }
}

/// The first access to a page, which is a #VC (0x404) when it is not validated; leaves it cleared.
fn use_page(page: u64) {
    let pattern = page ^ 0x5a5a_5a5a_5a5a_5a5a;
    cpu::write(page, pattern);
    check(cpu::read::<u64>(page) == pattern, Reason::MemoryContents);
    clear_page(page);
}

/// Maps a page of the first 2 MiB without the C-bit.
#[inline(never)]
pub fn map_shared(page: u64) {
    let entry = (&raw mut boot_pt) as u64 + page / PAGE_SIZE * 8;
    cpu::write(entry, cpu::read::<u64>(entry) & !c_bit());
    invalidate_page(page);
}

// RMPADJUST's RDX: target VMPL in bits 7:0, permissions in 15:8, the VMSA attribute in bit 16.
pub const READ: u64 = 1;
pub const WRITE: u64 = 2;
pub const EXECUTE_SUPERVISOR: u64 = 8;
const VMSA_ATTRIBUTE: u64 = 1 << 16;

/// Lets `vmpl` use a page in the given ways.
#[inline(never)]
pub fn grant_page(page: u64, vmpl: u64, permissions: u64) {
    adjust(page, vmpl | permissions << 8);
}

/// Makes a page the save area of a virtual processor at `vmpl`.
#[inline(never)]
pub fn make_vmsa_page(page: u64, vmpl: u64) {
    adjust(page, vmpl | VMSA_ATTRIBUTE);
}

fn adjust(page: u64, attributes: u64) {
    let code = cpu::rmpadjust(page, attributes);
    if code != 0 {
        terminate(Reason::Rmpadjust(code));
    }
}

//! Guest-physical addresses. All memory is identity-mapped: virtual address = guest-physical address.
//! The IGVM file (scripts/samples-igvm.ts) and entry.s use the same numbers.

pub const PAGE_SIZE: u64 = 0x1000;
pub const LARGE_PAGE_SIZE: u64 = 0x20_0000;

/// A 2 MiB region that nothing was loaded into, so the host can back it with one large page.
pub const HEAP: u64 = 0x20_0000;

/// Pages validated one by one. The launch put 4 KiB pages into the same 2 MiB region, so it can only be
/// validated in 4 KiB pages.
pub const POOL: u64 = 0x40_0000;
pub const POOL_PAGES: u64 = 16;

// Pages of the pool.
pub const GUEST_PML4: u64 = POOL;
pub const GUEST_PDPT: u64 = POOL + 0x1000;
pub const GUEST_PD: u64 = POOL + 0x2000;
/// Maps the guest's code, in the 2 MiB region of the image.
pub const GUEST_PT_CODE: u64 = POOL + 0x3000;
/// Maps the guest's stack and calling area, in the 2 MiB region of the pool.
pub const GUEST_PT_DATA: u64 = POOL + 0x4000;
pub const GUEST_STACK: u64 = POOL + 0x5000;
/// The calling area (CAA) of the SVSM calling convention.
pub const GUEST_CALLING_AREA: u64 = POOL + 0x6000;
/// The save area of the guest's virtual processor. Not 2 MiB aligned: no VMSA may be (SNP erratum).
pub const GUEST_VMSA: u64 = POOL + 0x7000;

// Pages the launch filled.
pub const PARAMETERS: u64 = 0x41_0000;
pub const MEMORY_MAP: u64 = 0x41_1000;
pub const CPUID_PAGE: u64 = 0x41_2000;
pub const SECRETS_PAGE: u64 = 0x41_3000;

//! What the launch left in memory: the CPUID page, the secrets page and the parameters.

use crate::cpu::{self, CpuidResult};
use crate::layout::{CPUID_PAGE, HEAP, LARGE_PAGE_SIZE, MEMORY_MAP, PAGE_SIZE, PARAMETERS, POOL, POOL_PAGES, SECRETS_PAGE};
use crate::terminate::{Reason, check};

const CPUID_PAGE_ENTRIES: u64 = 64;
const CPUID_ENTRY_SIZE: u64 = 48;

/// An entry of the CPUID page (SNP firmware ABI, CPUID_FUNCTION): inputs EAX, ECX, XCR0, XSS, then outputs.
/// A leaf that is not listed reads as zeros.
#[inline(never)]
pub fn cpuid_page_entry(leaf: u32, subleaf: u32) -> CpuidResult {
    let count = cpu::read::<u32>(CPUID_PAGE) as u64;
    check(count <= CPUID_PAGE_ENTRIES, Reason::LaunchParameters);
    let mut index = 0;
    while index < count {
        let entry = CPUID_PAGE + 16 + index * CPUID_ENTRY_SIZE;
        if cpu::read::<u32>(entry) == leaf && cpu::read::<u32>(entry + 4) == subleaf {
            return CpuidResult {
                eax: cpu::read(entry + 24),
                ebx: cpu::read(entry + 28),
                ecx: cpu::read(entry + 32),
                edx: cpu::read(entry + 36),
            };
        }
        index += 1;
    }
    CpuidResult { eax: 0, ebx: 0, ecx: 0, edx: 0 }
}

const MAP_ENTRY_SIZE: u64 = 24;
const MAP_ENTRIES: u64 = PAGE_SIZE / MAP_ENTRY_SIZE;
const MAP_TYPE_MEMORY: u16 = 0;

/// Where the secrets page has the key for VMPL0's messages to the secure processor.
const VMPCK0: u64 = 0x20;

/// Reads the parameter pages: there must be a processor, and the memory map must have the memory that the
/// next steps use. The secrets page must have a key. Returns the number of processors.
#[inline(never)]
pub fn read_launch_parameters() -> u32 {
    let processors = cpu::read::<u32>(PARAMETERS);
    check(processors >= 1, Reason::LaunchParameters);
    check(has_memory(HEAP, HEAP + LARGE_PAGE_SIZE), Reason::LaunchParameters);
    check(has_memory(POOL, POOL + POOL_PAGES * PAGE_SIZE), Reason::LaunchParameters);
    let key = cpu::read::<u64>(SECRETS_PAGE + VMPCK0) | cpu::read::<u64>(SECRETS_PAGE + VMPCK0 + 8);
    check(key != 0, Reason::LaunchParameters);
    processors
}

/// Whether one entry of the memory map (IGVM_VHS_MEMORY_MAP_ENTRY) covers the range.
fn has_memory(from: u64, to: u64) -> bool {
    let mut index = 0;
    while index < MAP_ENTRIES {
        let entry = MEMORY_MAP + index * MAP_ENTRY_SIZE;
        let pages = cpu::read::<u64>(entry + 8);
        if pages == 0 {
            return false; // the end of the map
        }
        let start = cpu::read::<u64>(entry) * PAGE_SIZE;
        if cpu::read::<u16>(entry + 16) == MAP_TYPE_MEMORY && start <= from && to - start <= pages * PAGE_SIZE {
            return true;
        }
        index += 1;
    }
    false
}

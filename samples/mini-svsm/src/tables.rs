//! Descriptor tables.

use core::arch::asm;
use core::cell::UnsafeCell;

pub const CODE_SELECTOR: u16 = 0x08;
const INTERRUPT_GATE: u16 = 0x8e00; // present, DPL 0, 64-bit interrupt gate
const VECTORS: usize = 32;

#[repr(C, packed)]
struct TablePointer {
    limit: u16,
    base: u64,
}

/// Null, 64-bit code, data.
static GDT: [u64; 3] = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

#[derive(Clone, Copy)]
#[repr(C)]
struct Gate {
    offset_low: u16,
    selector: u16,
    attributes: u16,
    offset_middle: u16,
    offset_high: u32,
    reserved: u32,
}

#[repr(C, align(16))]
struct Idt(UnsafeCell<[Gate; VECTORS]>);
// SAFETY: written once, before it is loaded.
unsafe impl Sync for Idt {}
const NO_GATE: Gate =
    Gate { offset_low: 0, selector: 0, attributes: 0, offset_middle: 0, offset_high: 0, reserved: 0 };
static IDT: Idt = Idt(UnsafeCell::new([NO_GATE; VECTORS]));

unsafe extern "C" {
    /// The entries of the exceptions (entry.s).
    static trap_table: [u64; VECTORS];
}

/// Loads the final GDT and reloads the segment registers from it.
#[inline(never)]
pub fn install_gdt() {
    let pointer = TablePointer { limit: size_of_val(&GDT) as u16 - 1, base: (&raw const GDT) as u64 };
    // SAFETY: the same descriptors as those in use.
    unsafe {
        asm!("lgdt [{pointer}]",
             "push {code}", "lea {scratch}, [rip + 2f]", "push {scratch}", "retfq", "2:",
             "mov ds, {data:e}", "mov es, {data:e}", "mov ss, {data:e}",
             pointer = in(reg) &raw const pointer, code = in(reg) CODE_SELECTOR as u64,
             data = in(reg) 0x10u64, scratch = out(reg) _)
    };
}

/// Fills and loads the IDT: every exception has an entry.
#[inline(never)]
pub fn install_idt() {
    let mut vector = 0;
    while vector < VECTORS {
        // SAFETY: one processor, interrupts are off.
        unsafe {
            let entry = trap_table[vector];
            (*IDT.0.get())[vector] = Gate {
                offset_low: entry as u16,
                selector: CODE_SELECTOR,
                attributes: INTERRUPT_GATE,
                offset_middle: (entry >> 16) as u16,
                offset_high: (entry >> 32) as u32,
                reserved: 0,
            };
        }
        vector += 1;
    }
    let pointer = TablePointer { limit: size_of::<Idt>() as u16 - 1, base: IDT.0.get() as u64 };
    // SAFETY: the table is complete and stays.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer) };
}

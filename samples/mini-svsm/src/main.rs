//! mini-svsm: a small SVSM. It takes each step that a secure VM service module takes on SEV-SNP, checks it, and
//! says so on the serial console; README.md has the steps and what happens when one fails.
//!
//! entry.s runs first (step 1) and calls `svsm_main`.

#![no_std]
#![no_main]

mod broken;
mod console;
mod cpu;
mod ghcb;
mod guest;
mod launch;
mod layout;
mod memory;
mod tables;
mod terminate;
mod vc;

use broken::Broken;
use console::{initialize_console, print, print_decimal, print_hex};
use terminate::{Reason, terminate};

#[unsafe(no_mangle)]
extern "C" fn svsm_main(c_bit_position: u32) -> ! {
    memory::set_c_bit(c_bit_position);

    tables::install_gdt();
    tables::install_idt();

    ghcb::negotiate_version();
    let features = ghcb::query_hypervisor_features();
    ghcb::share_ghcb_page();
    if !broken::is(Broken::UnregisteredGhcb) {
        ghcb::register_ghcb();
    }

    initialize_console();
    print("mini-svsm: a small SVSM\n");
    print("[1] long mode, C-bit is bit ");
    print_decimal(c_bit_position as u64);
    print("\n[2] GDT and IDT installed\n[3] GHCB registered at ");
    print_hex(ghcb::page_address());
    print(", hypervisor features ");
    print_hex(features);

    let processors = launch::read_launch_parameters();
    let large = memory::validate_memory();
    print("\n[4] memory validated: ");
    print(if large { "1 page of 2 MiB, " } else { "512 pages of 4 KiB, " });
    print_decimal(layout::POOL_PAGES);
    print(" pages of 4 KiB; processors: ");
    print_decimal(processors as u64);

    let apic_base = vc::take_vc_exceptions(c_bit_position);
    print("\n[5] #VC handled: CPUID from its page, RDMSR by the host: APIC base ");
    print_hex(apic_base);
    print("\n[6] this console, through the GHCB\n");

    guest::build_guest_page_tables();
    guest::build_guest_vmsa();
    guest::grant_guest_pages();
    print("[7] the VMPL2 guest has its pages\n");

    guest::register_guest_vmsa();
    guest::run_guest();
    let call = guest::serve_request();
    guest::run_guest();
    guest::check_guest_finished();
    print("[8] VMPL2 made call ");
    print_hex(call);
    print(", was answered and has finished\n");

    print("[9] success\n");
    end_with_success();
}

const DEBUG_EXIT_PORT: u16 = 0xf4;
const DEBUG_EXIT_SUCCESS: u32 = 0x10;

/// Writes QEMU's isa-debug-exit device, as COCONUT-SVSM's test image does.
#[inline(never)]
fn end_with_success() -> ! {
    ghcb::write_port_32(DEBUG_EXIT_PORT, DEBUG_EXIT_SUCCESS);
    loop {
        cpu::halt(); // a host without that device
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    terminate(Reason::Panic)
}

//! The serial console: a 16550 at 0x3f8, reached through the GHCB.

use crate::ghcb::{read_port_8, write_port_8};

const COM1: u16 = 0x3f8;
const LINE_CONTROL: u16 = COM1 + 3;
const MODEM_CONTROL: u16 = COM1 + 4;
const LINE_STATUS: u16 = COM1 + 5;
const EIGHT_BITS: u8 = 3;
const READY: u8 = 3; // DTR, RTS
const TRANSMITTER_EMPTY: u8 = 0x20;

#[inline(never)]
pub fn initialize_console() {
    write_port_8(LINE_CONTROL, EIGHT_BITS);
    write_port_8(COM1 + 1, 0); // no interrupts
    write_port_8(MODEM_CONTROL, READY);
}

fn print_byte(byte: u8) {
    while read_port_8(LINE_STATUS) & TRANSMITTER_EMPTY == 0 {}
    write_port_8(COM1, byte);
}

#[inline(never)]
pub fn print(text: &str) {
    let bytes = text.as_bytes();
    let mut index = 0;
    while index < bytes.len() {
        print_byte(bytes[index]);
        index += 1;
    }
}

/// Hexadecimal, with 0x and without leading zeros.
#[inline(never)]
pub fn print_hex(value: u64) {
    print("0x");
    let mut shift = 60;
    while shift > 0 && value >> shift == 0 {
        shift -= 4;
    }
    loop {
        print_byte(b"0123456789abcdef"[(value >> shift & 0xf) as usize]);
        if shift == 0 {
            return;
        }
        shift -= 4;
    }
}

#[inline(never)]
pub fn print_decimal(value: u64) {
    let mut divisor = 1;
    while value / divisor >= 10 {
        divisor *= 10;
    }
    while divisor > 0 {
        print_byte(b'0' + (value / divisor % 10) as u8);
        divisor /= 10;
    }
}

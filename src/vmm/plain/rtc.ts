/** The CMOS clock (MC146818A) at a fixed date: 2024-01-01 00:00:00 UTC at the machine's start. No alarm, no interrupts. */
import type { PortDevice } from '../devices.ts';
import type { Clock } from './clock.ts';

const FIRST_YEAR = 2024;
/** Sunday is 1; 2024-01-01 was a Monday. */
const FIRST_WEEKDAY = 2;
const NS_PER_SECOND = 1_000_000_000;
const STATUS_B_BINARY = 4;
const STATUS_B_24_HOURS = 2;

export class CmosClock implements PortDevice {
  readonly #clock: Clock;
  readonly #memory = new Uint8Array(128);
  #index = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#memory[0x0a] = 0x26;
    this.#memory[0x0b] = STATUS_B_24_HOURS;
  }

  read(offset: number): number {
    return offset === 0 ? 0xff : this.#register(this.#index);
  }
  write(offset: number, _size: number, value: number): void {
    if (offset === 0) this.#index = value & 0x7f;
    else if (this.#index > 0x0d || this.#index === 0x0b || this.#index === 0x0a)
      this.#memory[this.#index] = value & 0xff;
  }

  #register(index: number): number {
    const seconds = Math.floor(this.#clock.now() / NS_PER_SECOND);
    const date = calendar(Math.floor(seconds / 86_400));
    switch (index) {
      case 0x00:
        return this.#digits(seconds % 60);
      case 0x02:
        return this.#digits(Math.floor(seconds / 60) % 60);
      case 0x04:
        return this.#hours(Math.floor(seconds / 3600) % 24);
      case 0x06:
        return this.#digits(date.weekday);
      case 0x07:
        return this.#digits(date.day);
      case 0x08:
        return this.#digits(date.month);
      case 0x09:
        return this.#digits(date.year % 100);
      case 0x0a: {
        // UIP: an update is near, as long as the data sheet says (244 µs before each second).
        const phase = this.#clock.now() % NS_PER_SECOND;
        return (this.#memory[0x0a]! & 0x7f) | (phase >= NS_PER_SECOND - 244_000 ? 0x80 : 0);
      }
      case 0x0c:
        return 0;
      case 0x0d:
        return 0x80; // the battery is good
      case 0x32:
        return this.#digits(Math.floor(date.year / 100));
      default:
        return this.#memory[index]!;
    }
  }

  #hours(hours: number): number {
    if (this.#memory[0x0b]! & STATUS_B_24_HOURS) return this.#digits(hours);
    return this.#digits(hours % 12 || 12) | (hours >= 12 ? 0x80 : 0);
  }
  #digits(value: number): number {
    return this.#memory[0x0b]! & STATUS_B_BINARY ? value : parseInt(String(value), 16);
  }
}

/** The Gregorian date `days` after the first of January of `FIRST_YEAR`. */
function calendar(days: number): { year: number; month: number; day: number; weekday: number } {
  const leap = (year: number): boolean => (year % 4 === 0 && year % 100 !== 0) || year % 400 === 0;
  const weekday = ((days + FIRST_WEEKDAY - 1) % 7) + 1;
  let year = FIRST_YEAR;
  for (let length = 366; days >= length; length = leap(year) ? 366 : 365) {
    days -= length;
    year++;
  }
  const months = [31, leap(year) ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
  let month = 0;
  while (days >= months[month]!) days -= months[month++]!;
  return { year, month: month + 1, day: days + 1, weekday };
}

import { describe, expect, it } from 'vitest';
import { assemble } from './assemble.ts';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

describe('the test assembler', () => {
  it.each([
    [64, 'mov rax, 1', '48c7c001000000'],
    [64, 'mov eax, 1', 'b801000000'],
    [64, 'mov rax, 0x1122334455667788', '48b88877665544332211'],
    [64, 'add [rbx+rcx*4+8], eax', '01448b08'],
    [64, 'mov dword [rip+0x10], 5', 'c7050600000005000000'],
    [64, 'iretq', '48cf'],
    [64, 'lgdt [0x1000]', '0f01142500100000'],
    [64, 'mov cr3, rax', '0f22d8'],
    [64, 'rep movsb', 'f3a4'],
    [64, 'lock xadd [rdi], rax', 'f0480fc107'],
    [64, 'out dx, al', 'ee'],
    [64, 'int 0x80', 'cd80'],
    [64, 'syscall', '0f05'],
    [64, 'mov fs:[0x10], rax', '644889042510000000'],
    [32, 'jmp 8:0x1000', 'ea001000000800'],
    [16, 'mov ax, [bx+si+4]', '8b4004'],
    [16, 'jmp 0xf000:0xe05b', 'ea5be000f0'],
    [16, 'lgdt [0x600]', '0f01160006'],
    [64, 'jmp far [rax]', 'ff28'],
    [64, 'shl rax, 1', '48d1e0'],
    [64, 'push 0x10', '6a10'],
    [64, 'push 0x1234', '6834120000'],
    [64, 'retf', 'cb'],
    [64, 'retfq', '48cb'],
    [16, 'jmp dword 8:0x12345', '66ea452301000800'],
    [64, 'cmovz rax, rbx', '480f44c3'],
    [64, 'insb', '6c'],
    [64, 'movq xmm0, rax', '66480f6ec0'],
    [64, 'xsaveopt [rdi]', '0fae37'],
    [64, 'pvalidate', 'f20f01ff'],
  ])('%i-bit "%s"', (bits, text, bytes) => {
    expect(hex(assemble(text, 0, bits).bytes)).toBe(bytes);
  });

  it('resolves labels both ways', () => {
    const { bytes, labels } = assemble('start: jmp end\n times 200 nop\nend: jnz start\n dq start', 0x1000);
    expect(labels.get('end')).toBe(0x1000n + 5n + 200n);
    expect(hex(bytes.subarray(0, 5))).toBe('e9c8000000');
    expect(hex(bytes.subarray(-8))).toBe('0010000000000000');
  });

  it('says which line is wrong', () => {
    expect(() => assemble('nop\nmov rax, bl')).toThrow(/line 2, "mov rax, bl"/);
    expect(() => assemble('jmp nowhere')).toThrow(/unknown label "nowhere"/);
  });
});

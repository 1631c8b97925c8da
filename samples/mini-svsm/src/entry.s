# The first instructions of mini-svsm, and its exception entries.
#
# The vCPU starts here with the registers of the VMSA page of the IGVM file: 32-bit protected mode, paging off,
# flat segments, RIP = startup_32. Without paging every access is private (encrypted).
#
# SS is as COCONUT-SVSM sets it (attributes 0xA93: D/B clear, so a push would use SP, not ESP): there is no
# stack until long mode.

.intel_syntax noprefix

.set CPUID_PAGE,        0x412000        # layout.rs has the same number
.set CPUID_ENTRY_SIZE,  48
.set LEAF_ENCRYPTION,   0x8000001f      # EBX[5:0]: position of the C-bit

.set MSR_EFER,          0xc0000080
.set MSR_GHCB,          0xc0010130
.set MSR_SEV_STATUS,    0xc0010131
.set SEV_STATUS_SNP,    0x7             # SEV, SEV-ES and SEV-SNP are active

.set EFER_LME,          0x100
.set CR0_WP_PG,         0x80010000

.set PTE_TABLE,         0x63            # present, writable, accessed, dirty
.set PTE_2M,            0xe3            # the same and page size

.set TERMINATE_NO_CPUID_LEAF, 0x017100  # GHCB MSR 0x100, reason set 7, code 1
.set TERMINATE_NOT_SNP,       0x027100  # code 2

.section .text.entry, "ax", @progbits
.code32

# Step 1: find the C-bit, build page tables with it, enter long mode.
.globl startup_32
.type startup_32, @function
startup_32:
    cli
    cld
.size startup_32, . - startup_32

    # The CPUID page: a count, then entries. The secure processor has checked what the host put there.
.globl find_c_bit
.type find_c_bit, @function
find_c_bit:
    mov     esi, CPUID_PAGE
    mov     ecx, [esi]
    cmp     ecx, 64
    ja      .Lno_cpuid_leaf
    add     esi, 16
.Lnext_cpuid_entry:
    test    ecx, ecx
    jz      .Lno_cpuid_leaf
    cmp     dword ptr [esi], LEAF_ENCRYPTION
    je      .Lfound_cpuid_leaf
    add     esi, CPUID_ENTRY_SIZE
    dec     ecx
    jmp     .Lnext_cpuid_entry
.Lfound_cpuid_leaf:
    mov     eax, [esi + 28]             # EBX of the leaf
    and     eax, 0x3f
    mov     [c_bit_position], eax
    cmp     eax, 32
    jb      .Lno_cpuid_leaf
    sub     eax, 32
    xor     ebx, ebx
    bts     ebx, eax                    # EBX: the C-bit in the upper half of a page table entry
.size find_c_bit, . - find_c_bit

    # Is this an SNP guest at all?
.globl check_sev_status
.type check_sev_status, @function
check_sev_status:
    mov     ecx, MSR_SEV_STATUS
    rdmsr
    and     eax, SEV_STATUS_SNP
    cmp     eax, SEV_STATUS_SNP
    jne     .Lnot_snp
.size check_sev_status, . - check_sev_status

    # Identity map of the first GiB: 4 KiB pages below 2 MiB (so that one page can be shared), 2 MiB pages above.
.globl build_page_tables
.type build_page_tables, @function
build_page_tables:
    mov     eax, offset boot_pdpt + PTE_TABLE
    mov     [boot_pml4], eax
    mov     [boot_pml4 + 4], ebx
    mov     eax, offset boot_pd + PTE_TABLE
    mov     [boot_pdpt], eax
    mov     [boot_pdpt + 4], ebx

    mov     edi, offset boot_pd
    mov     eax, PTE_2M
    mov     ecx, 512
.Lfill_page_directory:
    mov     [edi], eax
    mov     [edi + 4], ebx
    add     edi, 8
    add     eax, 0x200000
    dec     ecx
    jnz     .Lfill_page_directory

    mov     edi, offset boot_pt
    mov     eax, PTE_TABLE
    mov     ecx, 512
.Lfill_page_table:
    mov     [edi], eax
    mov     [edi + 4], ebx
    add     edi, 8
    add     eax, 0x1000
    dec     ecx
    jnz     .Lfill_page_table

    mov     eax, offset boot_pt + PTE_TABLE
    mov     [boot_pd], eax
    mov     [boot_pd + 4], ebx
.size build_page_tables, . - build_page_tables

.globl enter_long_mode
.type enter_long_mode, @function
enter_long_mode:
    mov     eax, offset boot_pml4
    mov     cr3, eax                    # CR4.PAE is set in the VMSA
    mov     ecx, MSR_EFER
    rdmsr
    or      eax, EFER_LME               # NXE and SVME stay
    wrmsr
    mov     eax, cr0
    or      eax, CR0_WP_PG
    mov     cr0, eax
    lgdt    [boot_gdt_pointer]
    .byte   0xea                        # jmp 0x08:startup_64
    .long   startup_64
    .word   0x08
.size enter_long_mode, . - enter_long_mode

.type terminate_32, @function
terminate_32:
.Lno_cpuid_leaf:
    mov     eax, TERMINATE_NO_CPUID_LEAF
    jmp     .Lterminate
.Lnot_snp:
    mov     eax, TERMINATE_NOT_SNP
.Lterminate:
    xor     edx, edx
    mov     ecx, MSR_GHCB
    wrmsr
    vmgexit
.Lstay_terminated:
    hlt
    jmp     .Lstay_terminated
.size terminate_32, . - terminate_32

.code64
.globl startup_64
.type startup_64, @function
startup_64:
    mov     eax, 0x10
    mov     ds, eax
    mov     es, eax
    mov     ss, eax
    xor     eax, eax
    mov     fs, eax
    mov     gs, eax
    lea     rsp, boot_stack_top[rip]
    xor     ebp, ebp                    # the end of the frame pointer chain
    mov     edi, c_bit_position[rip]
    call    svsm_main
    ud2
.size startup_64, . - startup_64

# Exception entries: a uniform frame (vc.rs, TrapFrame), then handle_trap.
.macro trap_entry vector, pushes_error_code
trap_\vector:
    .if \pushes_error_code == 0
    push    0
    .endif
    push    \vector
    jmp     trap_common
.endm

.altmacro
.macro trap_entries from, to
    .set current, \from
    .rept \to - \from
    .if current == 8 || current == 10 || current == 11 || current == 12 || current == 13 || current == 14 || current == 17 || current == 21 || current == 29 || current == 30
    trap_entry %current, 1
    .else
    trap_entry %current, 0
    .endif
    .set current, current + 1
    .endr
.endm
.macro trap_pointers from, to
    .set current, \from
    .rept \to - \from
    trap_pointer %current
    .set current, current + 1
    .endr
.endm
.macro trap_pointer vector
    .quad trap_\vector
.endm

.section .text, "ax", @progbits
trap_entries 0, 32

.globl trap_common
.type trap_common, @function
trap_common:
    push    rax
    push    rbx
    push    rcx
    push    rdx
    push    rsi
    push    rdi
    push    rbp
    push    r8
    push    r9
    push    r10
    push    r11
    push    r12
    push    r13
    push    r14
    push    r15
    mov     rdi, rsp
    # A frame link to the interrupted instruction, so that a debugger's stack shows it.
    push    [rsp + 17 * 8]
    push    rbp
    mov     rbp, rsp
    call    handle_trap
    pop     rbp
    add     rsp, 8                      # the link's RIP
    pop     r15
    pop     r14
    pop     r13
    pop     r12
    pop     r11
    pop     r10
    pop     r9
    pop     r8
    pop     rbp
    pop     rdi
    pop     rsi
    pop     rdx
    pop     rcx
    pop     rbx
    pop     rax
    add     rsp, 16                     # vector and error code
    iretq
.size trap_common, . - trap_common

# What the compiler calls for copies and fills.
.globl memcpy
.type memcpy, @function
memcpy:
    mov     rax, rdi
    mov     rcx, rdx
    rep movsb
    ret
.size memcpy, . - memcpy

.globl memset
.type memset, @function
memset:
    mov     r8, rdi
    mov     eax, esi
    mov     rcx, rdx
    rep stosb
    mov     rax, r8
    ret
.size memset, . - memset

.section .rodata, "a", @progbits
.balign 8
.globl trap_table
trap_table:
    trap_pointers 0, 32

.balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff            # 0x08: 64-bit code
    .quad 0x00cf93000000ffff            # 0x10: data
boot_gdt_pointer:
    .word . - boot_gdt - 1
    .quad boot_gdt

.section .bss, "aw", @nobits
.balign 4096
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_pd:   .skip 4096
.globl boot_pt
boot_pt:   .skip 4096
boot_stack: .skip 0x4000
.globl boot_stack_top
boot_stack_top:
c_bit_position: .skip 8

.section .note.GNU-stack, "", @progbits

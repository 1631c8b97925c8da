# The VMPL2 guest: asks its SVSM one question by the SVSM calling convention, checks the answer, finishes.
#
# It starts in 64-bit mode with its own page tables and stack, and with the address of its calling area
# (CAA) in RDI. It has no GHCB page: both exits use the GHCB MSR protocol.

.intel_syntax noprefix

.set MSR_GHCB,               0xc0010130
.set GHCB_RUN_VMPL,          0x016      # request; the target VMPL is in bits 39:32
.set GHCB_RUN_VMPL_RESPONSE, 0x017      # bits 63:32 are 0 on success

.set SVSM_CORE_QUERY_PROTOCOL, 6        # RAX: protocol 0 << 32 | call 6
.set SVSM_SUCCESS,             0
.set CORE_PROTOCOL_VERSION_1,  1        # RCX: protocol 0 << 32 | version 1

.set RESULT_DONE,            0x600d     # in RBX when the guest finishes
.set RESULT_FAILED,          0x0bad

.section .guest, "ax", @progbits
.code64
.globl guest_entry
.type guest_entry, @function
guest_entry:
    xor     ebp, ebp
    mov     r12, rdi                    # the calling area
.size guest_entry, . - guest_entry

.globl guest_query_protocol
.type guest_query_protocol, @function
guest_query_protocol:
    mov     byte ptr [r12], 1           # call pending
    mov     eax, SVSM_CORE_QUERY_PROTOCOL
    mov     ecx, CORE_PROTOCOL_VERSION_1
    call    guest_call_svsm

    # Still pending: the host came back without running the SVSM.
    xor     edx, edx
    xchg    [r12], dl
    test    dl, dl
    jnz     .Lguest_failed
    cmp     rax, SVSM_SUCCESS
    jne     .Lguest_failed
    mov     rax, 0x100000001            # the SVSM knows versions 1 to 1
    cmp     rcx, rax
    jne     .Lguest_failed
    mov     ebx, RESULT_DONE
    jmp     guest_finished
.Lguest_failed:
    mov     ebx, RESULT_FAILED
.size guest_query_protocol, . - guest_query_protocol

    # Back to the SVSM for good: nothing is pending, the result is in RBX.
.globl guest_finished
.type guest_finished, @function
guest_finished:
    call    guest_call_svsm
    jmp     guest_finished
.size guest_finished, . - guest_finished

# Runs VMPL0 with the registers of the call in RAX, RCX, RDX; returns the SVSM's in the same registers, or goes to
# .Lguest_failed if the host refused.
.type guest_call_svsm, @function
guest_call_svsm:
    push    rbp
    mov     rbp, rsp
    push    rax
    push    rcx
    push    rdx
    mov     eax, GHCB_RUN_VMPL
    xor     edx, edx                    # VMPL0
    mov     ecx, MSR_GHCB
    wrmsr
    pop     rdx
    pop     rcx
    pop     rax
    vmgexit
    push    rax
    push    rcx
    push    rdx
    mov     ecx, MSR_GHCB
    rdmsr
    cmp     eax, GHCB_RUN_VMPL_RESPONSE
    jne     .Lguest_failed
    test    edx, edx
    jnz     .Lguest_failed
    pop     rdx
    pop     rcx
    pop     rax
    pop     rbp
    ret
.size guest_call_svsm, . - guest_call_svsm

.section .note.GNU-stack, "", @progbits

/** The texts of `--help`. */
export const HELP: Readonly<Record<string, string>> = {
  '': `cvm: look at, measure, run and debug confidential guests (AMD SEV-SNP) without SNP hardware

Usage: cvm COMMAND [ARGUMENTS]

  list FILE       every directive of an IGVM file, one a line
  measure FILE    the expected launch digest of an IGVM file, or of an OVMF guest
  run FILE        run the guest; its console is standard output
  dap             serve the debug adapter on standard input and output
  lsp             serve the language server on standard input and output

cvm COMMAND --help tells more. Exit codes:
  0 success   1 the guest failed    2 usage             3 bad file    4 shutdown (triple fault)
  5 not implemented    6 --max-instructions reached    7 every vCPU halted    8 the host gave up
`,
  list: `Usage: cvm list FILE

Prints the listing of an IGVM file: header, platforms, initialization, directives, and what is wrong with
it, with file offsets. A damaged file is listed as far as it can be read; the exit code is then 3.

  cvm list svsm.igvm
  diff <(cvm list old.igvm) <(cvm list new.igvm)
`,
  measure: `Usage: cvm measure FILE [OPTIONS]
       cvm measure --mode MODE --ovmf PATH [OPTIONS]

Prints the measurement the platform's firmware will report: of an IGVM file, or of a guest that boots from
OVMF. The second form takes every option of sev-snp-measure under its own name.

For an IGVM file:
  --platform P         snp, sev-es, sev, tdx or vsm (default: the first declared of snp, tdx, vsm, sev-es, sev)
  --loader L           how the file is read: file-order (default), hyper-v, qemu-kvm, cloud-hypervisor-kvm,
                       cloud-hypervisor-mshv, igvmmeasure, igvmmeasure-native-zero
  --vcpus N            the guest's vCPUs, for loaders on KVM (then default: qemu-kvm); those without a
                       VP context in the file need the vCPU type or signature
  --tdx-order ORDER    one-pass (default) or two-pass

For OVMF:
  --mode MODE          sev, seves, snp, snp:ovmf-hash or snp:svsm
  --ovmf PATH          the firmware
  --vcpus N            the guest's vCPUs
  --vmm-type VMM       QEMU (default), ec2, gce or KRUN
  --kernel PATH, --initrd PATH, --append CMDLINE
                       direct boot with kernel hashes
  --guest-features F   SEV_FEATURES of the VMSAs (default 0x1)
  --snp-ovmf-hash HEX  what mode snp:ovmf-hash printed, in place of the firmware's pages
  --dump-vmsa          writes vmsa<N>.bin
  --svsm PATH, --vars-size SIZE, --vars-file PATH
                       mode snp:svsm
  --vmsa-field NAME=N  sets a field of every VMSA, may be repeated (x87_fcw=0x37f)
  --vmsa-gpa GPA       where VMSAs are measured (default 0xfffffffff000)

For both:
  --vcpu-type NAME     QEMU's name of the CPU (EPYC-v4, EPYC-Milan, EPYC-Genoa, EPYC-Turin, ...)
  --vcpu-sig N         or its CPUID signature
  --vcpu-family N --vcpu-model N --vcpu-stepping N
  --output-format F    hex (default) or base64
  --trace              each page: its contents hash and the digest after it
  --json               one JSON object
  -v, --verbose        a sentence with the digest

  cvm measure svsm.igvm
  cvm measure svsm.igvm --loader qemu-kvm --vcpus 4 --vcpu-type EPYC-v4 --json
  cvm measure --mode snp --vcpus 1 --vcpu-type EPYC-v4 --ovmf OVMF.fd --kernel vmlinuz --append quiet
  diff <(cvm measure --trace old.igvm) <(cvm measure --trace new.igvm)
`,
  run: `Usage: cvm run FILE [OPTIONS]

Runs the guest from its first instruction. Its first serial port is standard output; the reason of the end
and the number of instructions go to standard error.

  --symbols ELF          symbols for the report of a failure; may be repeated (default: those beside FILE)
  --vcpus N              virtual processors, 1 to 64 (default 1)
  --memory SIZE          guest memory: bytes, or with K, M, G (default 256M)
  --stop-at TEXT         end with success as soon as the console has printed TEXT
  --max-instructions N   end after N instructions (k, M, G for thousands)

  cvm run samples/mini-svsm/mini-svsm.igvm
  cvm run svsm.igvm --symbols svsm.elf --stop-at "Unpacking done" --max-instructions 2G
`,
  dap: `Usage: cvm dap

Serves the debug adapter for one session on standard input and output, with Content-Length framing, and
ends with its client. Launch attributes: program, symbols, vcpus, memory, platform, stopOnEntry, sourceMap.

  dap.adapters.cvm = { type = 'executable', command = 'cvm', args = { 'dap' } }     -- nvim-dap
`,
  lsp: `Usage: cvm lsp

Serves the language server for IGVM listings on standard input and output, and ends with its client.

  vim.lsp.start({ name = 'igvm', cmd = { 'cvm', 'lsp' } })     -- Neovim
`,
};

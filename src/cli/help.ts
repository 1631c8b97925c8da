/** The texts of `--help`. */
import { ATTEST_HELP } from './help-attest.ts';

export const HELP: Readonly<Record<string, string>> = {
  ...ATTEST_HELP,
  '': `cvm: look at, measure, run and debug confidential guests (AMD SEV-SNP) without SNP hardware

Usage: cvm COMMAND [ARGUMENTS]

  list FILE       every directive of an IGVM file, one a line
  measure FILE    the expected launch digest of an IGVM file, or of an OVMF guest
  explain FILE    what would make FILE give an expected digest
  diff A B        what differs between two files, and where their digests part
  check FILE      what is wrong with a file, and whether a loader takes it
  verify FILE     an image against an ID block, a report or a digest
  id-block VERB   create, sign, embed, show, verify ID blocks
  report VERB     show, verify attestation reports
  corim VERB      embed, show, verify CoRIM documents
  build SPEC      an IGVM file from a declarative description
  run FILE        run the guest; its console is standard output
  dap             serve the debug adapter on standard input and output
  lsp             serve the language server on standard input and output

cvm COMMAND --help tells more. Exit codes:
  0 success   1 the guest failed    2 usage             3 bad file    4 shutdown (triple fault)
  5 not implemented    6 --max-instructions reached    7 every vCPU halted    8 the host gave up
  1 also: diff, check and explain found something; verify: a check failed    9 explain found nothing that explains it
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
  --mode MODE          sev, seves, snp, snp:ovmf-hash or snp:svsm; or tdx (MRTD, with --tdx-order)
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
  explain: `Usage: cvm explain FILE --expected DIGEST [OPTIONS]
       cvm explain --mode MODE --ovmf PATH [...] --expected DIGEST [OPTIONS]

Finds what would make an image, or an OVMF guest, give the digest that was expected, and says it in one
sentence. Takes the options of cvm measure, which say how the image is believed to be launched.

  --expected DIGEST     hexadecimal, or a file: digest, ID block (96 bytes) or attestation report;
                        default: the ID block in FILE
  --reference FILE      a good IGVM file, or a good trace (cvm measure --trace --json): names changed pages,
                        which a digest alone cannot
  --candidate PATH      another OVMF image that may have been used; may be repeated
  --effort N            hashes after which the search ends (default 2M)
  --json                one JSON object: expected, measured, matches, causes, notes, tried, hashes, complete

Exit codes: 0 the digests match, 1 they differ and here is why, 9 they differ and nothing explains it.

  cvm explain svsm.igvm --loader qemu-kvm --expected report.bin
  cvm explain svsm.igvm --expected 1f2e... --reference last-release.igvm
  cvm explain --mode snp --vcpus 1 --vcpu-type EPYC-v4 --ovmf OVMF.fd --expected report.bin --candidate old/OVMF.fd
`,
  diff: `Usage: cvm diff A B [--json]

Prints the directives that differ (+ added, - removed, ~ changed, > moved), with fields and the first byte of
contents, and for each platform both digests and the first page after which they part. Exit code 1 if
anything differs. File offsets do not count: two files with the same guest are equal.

  cvm diff old.igvm new.igvm
  cvm diff old.igvm new.igvm --json | jq '.digests[].first'
`,
  check: `Usage: cvm check FILE [OPTIONS]

Prints what is wrong with a file: the rules of the format, whether a loader takes it, and lints; one finding
a line, FILE:DIRECTIVE: severity: message [code].

  --loader L             the loader to check for (default qemu-kvm; file-order: none)
  --release              what a release must not have is an error: a policy that allows debugging
  --level S              the least severity to print: error, warning, info, hint (default)
  --fail-on S            the least severity to fail on: error (default), warning, info, hint
  --firmware-descriptor PATH
                         checks QEMU's firmware descriptor of the file too
  --write-firmware-descriptor
                         prints a descriptor for the file instead
  --json                 one JSON object: file, loader, diagnostics

Exit code 1 if there are findings to fail on.

  cvm check svsm.igvm --release --fail-on warning
  cvm check svsm.igvm --write-firmware-descriptor > 60-svsm.json
`,
  build: `Usage: cvm build SPEC.json -o FILE [OPTIONS]

Writes the IGVM file that a description (docs/build.md) asks for. Paths in it are relative to it. What the
igvm crate would refuse is not written: exit code 3.

  -o, --output FILE            the file to write
  --firmware-descriptor PATH   writes QEMU's firmware descriptor of it too
  --json                       one JSON object: output, bytes, platform, digest

  cvm build guest.json -o guest.igvm && cvm check guest.igvm
`,
  run: `Usage: cvm run FILE [OPTIONS]
       cvm run --platform plain --kernel KERNEL [--initrd FILE] [--append TEXT] [OPTIONS]

Runs the guest from its first instruction. Its first serial port is standard output; the reason of the end
and the number of instructions go to standard error. The second form starts a kernel on a machine without
encryption: a Linux bzImage, a PVH or a Multiboot-1 kernel.

  --symbols ELF          symbols for the report of a failure; may be repeated (default: those beside FILE)
  --vcpus N              virtual processors, 1 to 64 (default 1)
  --memory SIZE          guest memory: bytes, or with K, M, G (default 256M)
  --stop-at TEXT         end with success as soon as the console has printed TEXT
  --max-instructions N   end after N instructions (k, M, G for thousands)

  cvm run samples/mini-svsm/mini-svsm.igvm
  cvm run svsm.igvm --symbols svsm.elf --stop-at "Unpacking done" --max-instructions 2G
  cvm run --platform plain --kernel vmlinuz --initrd initrd.cpio --append console=ttyS0
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

/** The texts of `--help`. */
export const HELP: Readonly<Record<string, string>> = {
  '': `cvm: look at, measure, run and debug confidential guests (AMD SEV-SNP) without SNP hardware

Usage: cvm COMMAND [ARGUMENTS]

  list FILE       every directive of an IGVM file, one a line
  measure FILE    the expected launch digest
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
  measure: `Usage: cvm measure FILE [--platform P] [--json]

Prints the measurement the platform's firmware will report for the file.

  --platform P   snp, tdx or vsm (default: the first of these that the file declares)
  --json         one JSON object: platform, compatibilityMask, name, algorithm, digest, diagnostics

  cvm measure svsm.igvm
  cvm measure svsm.igvm --platform snp --json
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

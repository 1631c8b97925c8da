import type { HeaderType } from '../igvm/index.ts';

/** What each header is for, in a sentence (igvm_defs 0.5, `IgvmVariableHeaderType`). */
export const MEANINGS: Readonly<Record<HeaderType, string>> = {
  SUPPORTED_PLATFORM:
    'A platform this file can be loaded on. Directives whose mask has this bit apply to it.',
  GUEST_POLICY: 'The policy the platform enforces for this guest, from launch on.',
  RELOCATABLE_REGION: 'Pages in this region may be loaded elsewhere; the loader moves them together.',
  PAGE_TABLE_RELOCATION: 'Page tables that the loader rewrites when it relocates the regions they map.',
  CORIM_DOCUMENT: 'A CoRIM with the reference values of this image, for verifiers.',
  CORIM_SIGNATURE: 'The signature of the CoRIM document.',
  CCA_POLICY: 'What the image requires of an Arm CCA realm.',
  VERSION_STRING: 'A label of the file, given by its owner.',
  PARAMETER_AREA:
    'Memory of the loader in which it collects runtime values for the guest. It reaches the guest with PARAMETER_INSERT.',
  PAGE_DATA: 'A page of guest memory with its first contents.',
  PARAMETER_INSERT:
    'The parameter area enters guest memory here. Its pages are unmeasured: the guest must not trust them.',
  VP_CONTEXT: 'The first state of a virtual processor. For SEV-SNP it is a save area (VMSA).',
  REQUIRED_MEMORY: 'Memory that must be there for the guest, without contents from the file.',
  VP_COUNT: 'The loader writes the number of virtual processors here.',
  SRAT: 'The loader writes the ACPI system resource affinity table here.',
  MADT: 'The loader writes the ACPI multiple APIC description table here.',
  MMIO_RANGES: 'The loader writes two ranges of address space for devices here.',
  SNP_ID_BLOCK:
    'The identity the owner signed: the firmware launches the guest only if the launch digest is this one.',
  MEMORY_MAP: 'The loader writes the memory map here: 24-byte entries, ended by one without pages.',
  ERROR_RANGE: 'Pages in which the guest reports errors to the host.',
  COMMAND_LINE: 'The loader writes the command line here, as bytes ended by zero.',
  SLIT: 'The loader writes the ACPI system locality information table here.',
  PPTT: 'The loader writes the ACPI processor properties topology table here.',
  VBS_MEASUREMENT: 'The signed boot measurement of VBS isolation.',
  DEVICE_TREE: 'The loader writes a flattened device tree here.',
  ENVIRONMENT_INFO: 'The loader writes flags here: bit 0 says whether memory is shared by default.',
  UNKNOWN: 'A header this reader does not know, kept as it is.',
};

/** What the types and flags of PAGE_DATA mean for SEV-SNP. */
export const PAGE_MEANINGS: Readonly<Record<string, string>> = {
  NORMAL: 'contents are measured',
  SECRETS: 'the firmware fills it with keys and the VMPL communication secrets; measured without contents',
  CPUID_DATA: 'the firmware fills it with the CPUID values it has checked; measured without contents',
  CPUID_XF: 'CPUID values for XCR0 features; the firmware checks them; measured without contents',
  unmeasured: 'contents are loaded but not measured: the guest must not trust them',
  shared: 'shared with the host, not encrypted, not measured',
  '2M': 'one page of 2 MiB',
};

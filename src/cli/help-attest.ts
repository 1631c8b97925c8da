/** The texts of `--help` of the commands on ID blocks, reports and CoRIMs. */
export const ATTEST_HELP: Readonly<Record<string, string>> = {
  verify: `Usage: cvm verify FILE [OPTIONS]

Verifies an SNP image: its launch digest against what is given, its ID block and its CoRIM document if it has
them. One line for each check; the exit code is 1 if one failed.

  --digest HEX        the expected launch digest (also base64)
  --report FILE       an attestation report: measurement, policy, key digests; with --cert its signature too
  --id-block FILE     an ID block of 96 bytes; with --id-auth FILE (4096 bytes) its signatures too
  --corim-key FILE    the key that signed the CoRIM document
  --cert FILE         certificates, PEM or DER; may be repeated: VCEK or VLEK, ASK, ARK
  --at DAY            the day as of which certificates must be valid, or now (default) or any
  --any-root          takes any root key, not only AMD's (for test machines)
  --loader, --vcpus, --vcpu-type …   how the image is loaded, as for cvm measure
  --json              one JSON object: ok, checks, digest, policy

  cvm verify svsm.igvm --digest "$(cat expected.txt)"
  cvm verify svsm.igvm --loader qemu-kvm --report report.bin --cert vcek.der --cert chain.pem
`,
  'id-block': `Usage: cvm id-block create FILE|--digest HEX [--policy N] [--family-id HEX] [--image-id HEX] [--svn N] --output BLOCK
       cvm id-block sign BLOCK --id-key KEY [--author-key KEY] --output AUTH [--json]
       cvm id-block sign BLOCK --id-signature SIG --id-public-key KEY
                               [--author-signature SIG --author-public-key KEY] --output AUTH
       cvm id-block embed FILE (--block BLOCK --auth AUTH | --id-key KEY [--author-key KEY]) [--replace] --output FILE
       cvm id-block show FILE|--block BLOCK --auth AUTH [--json]
       cvm id-block verify FILE|--block BLOCK --auth AUTH [--image FILE] [--digest HEX] [--policy N]
                           [--id-key-digest HEX] [--author-key-digest HEX] [--no-author] [--json]

Keys are P-384: SEC 1 ("EC PRIVATE KEY") or PKCS #8 ("PRIVATE KEY"), PEM or DER. Signatures are deterministic.
Signatures made elsewhere (an HSM) are DER or 96 raw bytes; the author signs the ID key in the firmware's form.
The policy is the image's unless --policy says otherwise; --loader, --vcpus … are those of cvm measure.
verify exits with 1 if a check failed.

  cvm id-block embed svsm.igvm --loader qemu-kvm --id-key id.pem --author-key author.pem --output signed.igvm
  cvm id-block verify signed.igvm --loader qemu-kvm
  cvm id-block create --digest "$LD" --policy 0x30000 --output block.bin
  cvm id-block sign block.bin --id-key id.pem --output auth.bin --json     # id-block, id-auth: base64 for QEMU
`,
  report: `Usage: cvm report show FILE [--json]
       cvm report verify FILE --cert FILE … [--at DAY] [--any-root] [--json]
                         [--measurement HEX] [--policy N] [--report-data HEX] [--host-data HEX] [--vmpl N]
                         [--id-key-digest HEX] [--author-key-digest HEX] [--family-id HEX] [--image-id HEX] [--svn N]

A report is raw (1184 bytes), hexadecimal, base64, a response of the firmware, an extended report with the
host's certificates, or Azure's HCL container. --cert names VCEK or VLEK, ASK and ARK, PEM or DER, in any order;
the root key must be AMD's of Milan, Genoa or Turin unless --any-root. Certificates must be valid at --at: a
day, now (default), any. Revocation is not looked up. verify exits with 1 if a check failed.

  cvm report show report.bin
  cvm report verify report.bin --cert vcek.der --cert cert_chain.pem --measurement "$(cvm measure svsm.igvm)"
  cvm report verify report.bin --cert vlek.der --cert chain.pem --at 2025-06-01
`,
  corim: `Usage: cvm corim embed FILE [--svn N] [--key KEY [--signer NAME]] [--replace] --output FILE
       cvm corim show FILE [--json]
       cvm corim verify FILE [--key KEY] [--json]

embed writes a CoRIM document in the igvm crate's launch-measurement profile for the image's digest, and signs it
(COSE_Sign1, ES384, detached) if a P-384 key is given. verify checks it against the digest, the profile and, with
a key, the signature; it exits with 1 if a check failed. --platform, --loader, --vcpus … are those of cvm measure.

  cvm corim embed svsm.igvm --svn 2 --key release.pem --signer Example --output endorsed.igvm
  cvm corim verify endorsed.igvm --key release.pub
`,
};

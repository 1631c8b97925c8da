//! A peer for the TypeScript IGVM rooms: the `igvm` crate reads, writes, measures and invents files.
//!
//!     igvm-peer digest FILE      hex digest for each measurable platform: `SEV_SNP <hex>`
//!     igvm-peer rewrite FILE     the file as the crate serialises it, on standard output
//!     igvm-peer check FILE       exit 0 if the crate accepts the file, 1 and the reason if not
//!     igvm-peer random SEED      a random file that the crate accepts, on standard output
//!     igvm-peer batch DIR        `check` of every file in DIR: lines `name ok digest;…` or `name error reason`
use igvm::measurement::{
    generate_snp_measurement, generate_tdx_measurement, generate_vbs_measurement,
};
use igvm::registers::X86Register;
use igvm::snp_defs::SevVmsa;
use igvm::{
    Arch, IgvmDirectiveHeader, IgvmFile, IgvmInitializationHeader, IgvmPlatformHeader, IgvmRevision,
};
use igvm_defs::*;
use std::io::Write;
use std::panic::{catch_unwind, AssertUnwindSafe};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn load(bytes: &[u8]) -> Result<IgvmFile, String> {
    // The crate asserts on some damaged files; that is a refusal too.
    match catch_unwind(AssertUnwindSafe(|| IgvmFile::new_from_binary(bytes, None))) {
        Ok(Ok(file)) => Ok(file),
        Ok(Err(error)) => Err(format!("{error:?}")),
        Err(_) => Err("panic".into()),
    }
}

/// `SEV_SNP <hex>`, `TDX <hex>`, …: one entry for each platform that has a measurement.
fn digests(file: &IgvmFile) -> Vec<String> {
    let mut out = Vec::new();
    for IgvmPlatformHeader::SupportedPlatform(platform) in file.platforms() {
        let mask = platform.compatibility_mask;
        let (init, directives) = (file.initializations(), file.directives());
        let (name, digest) = match platform.platform_type {
            IgvmPlatformType::SEV_SNP => (
                "SEV_SNP",
                generate_snp_measurement(init, directives, mask).map(|d| hex(&d)),
            ),
            IgvmPlatformType::TDX => (
                "TDX",
                generate_tdx_measurement(directives, mask).map(|d| hex(&d)),
            ),
            IgvmPlatformType::VSM_ISOLATION => (
                "VSM_ISOLATION",
                generate_vbs_measurement(directives, mask).map(|d| hex(&d)),
            ),
            _ => continue,
        };
        out.push(match digest {
            Ok(digest) => format!("{name} {digest}"),
            Err(error) => format!("{name} error {error}"),
        });
    }
    out
}

/// The crate measures a range page by page, however large a damaged file says it is.
fn measurable(file: &IgvmFile) -> bool {
    file.directives().iter().all(|header| match header {
        IgvmDirectiveHeader::ParameterArea {
            number_of_bytes, ..
        } => *number_of_bytes <= 1 << 24,
        IgvmDirectiveHeader::ErrorRange { size_bytes, .. } => *size_bytes <= 1 << 24,
        _ => true,
    })
}

/// xorshift64*: the same file for the same seed, on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit
    }
    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
    fn bytes(&mut self, size: usize) -> Vec<u8> {
        (0..size).map(|_| self.next() as u8).collect()
    }
    fn array<const N: usize>(&mut self) -> [u8; N] {
        self.bytes(N).try_into().unwrap()
    }
}

const NATIVE: u32 = 1;
const VSM: u32 = 2;
const SNP: u32 = 4;
const TDX: u32 = 8;
const ALL: u32 = NATIVE | VSM | SNP | TDX;

fn platform(mask: u32, platform_type: IgvmPlatformType, boundary: u64) -> IgvmPlatformHeader {
    IgvmPlatformHeader::SupportedPlatform(IGVM_VHS_SUPPORTED_PLATFORM {
        compatibility_mask: mask,
        highest_vtl: 0,
        platform_type,
        platform_version: 1,
        shared_gpa_boundary: boundary,
    })
}

fn random_directives(r: &mut Random) -> Vec<IgvmDirectiveHeader> {
    let mut out = Vec::new();
    let mut areas: Vec<u32> = Vec::new();
    let mut next_area = 0;
    for _ in 0..1 + r.below(40) {
        let gpa = r.below(1 << 20) << 12;
        let compatibility_mask = 1 + r.below(ALL as u64) as u32;
        let parameter = |r: &mut Random, areas: &[u32]| IGVM_VHS_PARAMETER {
            parameter_area_index: areas[r.below(areas.len() as u64) as usize],
            byte_offset: r.below(1024) as u32 * 4,
        };
        match r.below(12) {
            0..=4 => {
                // VBS measurement asserts NORMAL pages.
                let special = compatibility_mask & VSM == 0 && r.chance(20);
                let size = if r.chance(25) { 0 } else { 4096 };
                out.push(IgvmDirectiveHeader::PageData {
                    gpa,
                    compatibility_mask,
                    flags: IgvmPageDataFlags::new()
                        .with_unmeasured(r.chance(20))
                        .with_shared(r.chance(10)),
                    data_type: if special {
                        IgvmPageDataType(1 + r.below(3) as u16)
                    } else {
                        IgvmPageDataType::NORMAL
                    },
                    data: r.bytes(size),
                });
            }
            5 => {
                let number_of_bytes = 4096 * (1 + r.below(3));
                let size = if r.chance(50) {
                    0
                } else {
                    number_of_bytes as usize
                };
                areas.push(next_area);
                out.push(IgvmDirectiveHeader::ParameterArea {
                    number_of_bytes,
                    parameter_area_index: next_area,
                    initial_data: r.bytes(size),
                });
                next_area += 1;
            }
            6 if !areas.is_empty() => {
                let at = r.below(areas.len() as u64) as usize;
                out.push(IgvmDirectiveHeader::ParameterInsert(
                    IGVM_VHS_PARAMETER_INSERT {
                        gpa,
                        compatibility_mask,
                        parameter_area_index: areas.swap_remove(at),
                    },
                ));
            }
            7 if !areas.is_empty() => {
                let p = parameter(r, &areas);
                out.push(match r.below(10) {
                    0 => IgvmDirectiveHeader::VpCount(p),
                    1 => IgvmDirectiveHeader::EnvironmentInfo(p),
                    2 => IgvmDirectiveHeader::Srat(p),
                    3 => IgvmDirectiveHeader::Madt(p),
                    4 => IgvmDirectiveHeader::Slit(p),
                    5 => IgvmDirectiveHeader::Pptt(p),
                    6 => IgvmDirectiveHeader::MmioRanges(p),
                    7 => IgvmDirectiveHeader::MemoryMap(p),
                    8 => IgvmDirectiveHeader::CommandLine(p),
                    _ => IgvmDirectiveHeader::DeviceTree(p),
                });
            }
            8 => out.push(IgvmDirectiveHeader::RequiredMemory {
                gpa,
                compatibility_mask,
                number_of_bytes: 4096 * r.below(1000) as u32,
                vtl2_protectable: r.chance(50),
            }),
            9 => {
                use zerocopy::{FromZeros, IntoBytes};
                out.push(if r.chance(60) {
                    let mut vmsa = SevVmsa::new_box_zeroed().unwrap();
                    let bytes = vmsa.as_mut_bytes();
                    for _ in 0..64 {
                        let at = r.below(bytes.len() as u64) as usize;
                        bytes[at] = r.next() as u8;
                    }
                    IgvmDirectiveHeader::SnpVpContext {
                        gpa,
                        compatibility_mask: SNP,
                        vp_index: r.below(4) as u16,
                        vmsa,
                    }
                } else if r.chance(50) {
                    IgvmDirectiveHeader::X64VbsVpContext {
                        vtl: igvm::hv_defs::Vtl::Vtl0,
                        registers: vec![
                            X86Register::Rip(r.next()),
                            X86Register::Cr3(r.next()),
                            X86Register::Pat(r.next()),
                        ],
                        compatibility_mask: VSM,
                    }
                } else {
                    let mut context = IgvmNativeVpContextX64::new_zeroed();
                    context.rip = r.next();
                    context.cr3 = r.next();
                    IgvmDirectiveHeader::X64NativeVpContext {
                        compatibility_mask: NATIVE,
                        vp_index: 0,
                        context: Box::new(context),
                    }
                });
            }
            10 => out.push(IgvmDirectiveHeader::ErrorRange {
                gpa,
                compatibility_mask,
                size_bytes: 4096 * (1 + r.below(4)) as u32,
            }),
            11 if r.chance(30) => out.push(IgvmDirectiveHeader::SnpIdBlock {
                compatibility_mask: SNP,
                author_key_enabled: r.below(2) as u8,
                reserved: [0; 3],
                ld: r.array(),
                family_id: r.array(),
                image_id: r.array(),
                version: 1,
                guest_svn: r.next() as u32,
                id_key_algorithm: 1,
                author_key_algorithm: 1,
                id_key_signature: Box::new(signature(r)),
                id_public_key: Box::new(public_key(r)),
                author_key_signature: Box::new(signature(r)),
                author_public_key: Box::new(public_key(r)),
            }),
            _ => {}
        }
    }
    // A file without data is refused by the crate's own reader.
    out.push(IgvmDirectiveHeader::PageData {
        gpa: 0xffff_f000,
        compatibility_mask: ALL,
        flags: IgvmPageDataFlags::new(),
        data_type: IgvmPageDataType::NORMAL,
        data: r.bytes(4096),
    });
    out
}

fn signature(r: &mut Random) -> IGVM_VHS_SNP_ID_BLOCK_SIGNATURE {
    IGVM_VHS_SNP_ID_BLOCK_SIGNATURE {
        r_comp: r.array(),
        s_comp: r.array(),
    }
}

fn public_key(r: &mut Random) -> IGVM_VHS_SNP_ID_BLOCK_PUBLIC_KEY {
    IGVM_VHS_SNP_ID_BLOCK_PUBLIC_KEY {
        curve: 2,
        reserved: 0,
        qx: r.array(),
        qy: r.array(),
    }
}

fn random(seed: u64) -> Vec<u8> {
    let mut r = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let revision = if r.chance(50) {
        IgvmRevision::V1
    } else {
        IgvmRevision::V2 {
            arch: Arch::X64,
            page_size: 4096,
        }
    };
    let platforms = vec![
        platform(NATIVE, IgvmPlatformType::NATIVE, 0),
        platform(VSM, IgvmPlatformType::VSM_ISOLATION, 0),
        platform(SNP, IgvmPlatformType::SEV_SNP, r.next() & !0xfff),
        platform(TDX, IgvmPlatformType::TDX, 0),
    ];
    let mut initializations = vec![IgvmInitializationHeader::GuestPolicy {
        policy: r.next(),
        compatibility_mask: SNP | TDX,
    }];
    if r.chance(30) {
        let size = 1 + r.below(300) as usize;
        initializations.push(IgvmInitializationHeader::CorimDocument {
            compatibility_mask: SNP,
            document: r.bytes(size),
        });
        initializations.push(IgvmInitializationHeader::CorimSignature {
            compatibility_mask: SNP,
            signature: r.bytes(96),
        });
    }
    let directives = random_directives(&mut r);
    let file = IgvmFile::new(revision, platforms, initializations, directives).expect("valid file");
    let mut out = Vec::new();
    file.serialize(&mut out).expect("serialises");
    out
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let usage = "usage: igvm-peer digest|rewrite|check FILE | random SEED | batch DIR";
    let [_, command, argument] = args.as_slice() else {
        eprintln!("{usage}");
        std::process::exit(2);
    };
    std::panic::set_hook(Box::new(|_| {}));
    let write = |bytes: &[u8]| std::io::stdout().write_all(bytes).expect("standard output");
    match command.as_str() {
        "random" => write(&random(argument.parse().expect("a number"))),
        "batch" => {
            let mut names: Vec<_> = std::fs::read_dir(argument)
                .expect("a folder")
                .map(|entry| entry.unwrap().path())
                .collect();
            names.sort();
            for path in names {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                match load(&std::fs::read(&path).expect("a file")) {
                    // The VBS measurement asserts that all pages are NORMAL.
                    Ok(file) if !measurable(&file) => println!("{name} ok"),
                    Ok(file) => match catch_unwind(AssertUnwindSafe(|| digests(&file))) {
                        Ok(list) => println!("{name} ok {}", list.join(";")),
                        Err(_) => println!("{name} ok panic"),
                    },
                    Err(reason) => println!("{name} error {reason}"),
                }
            }
        }
        "digest" | "rewrite" | "check" => {
            let bytes = std::fs::read(argument).expect("a file");
            match (load(&bytes), command.as_str()) {
                (Err(reason), _) => {
                    println!("{reason}");
                    std::process::exit(1);
                }
                (Ok(file), "digest") => println!("{}", digests(&file).join("\n")),
                (Ok(file), "rewrite") => {
                    let mut out = Vec::new();
                    file.serialize(&mut out).expect("serialises");
                    write(&out);
                }
                _ => {}
            }
        }
        _ => {
            eprintln!("{usage}");
            std::process::exit(2);
        }
    }
}

//! The `igvm` and `corim` crates as peers for CoRIM documents.
//!
//!   make FILE.igvm snp|tdx|vbs SVN   the launch-measurement document the igvm crate makes for a file, as hex
//!   check DOCUMENT                   "ok ID" if the corim crate decodes and validates it
//!   signature SIGNATURE              "ok ALGORITHM" if it decodes as a detached signed CoRIM
use std::{env, error::Error, fs, process::exit};

use igvm::{
    corim::launch_measurement::{LaunchMeasurement, MeasurementKind},
    IgvmFile, IgvmSerializer,
};
use igvm_defs::IgvmPlatformType;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn make(args: &[String]) -> Result<String> {
    let file = IgvmFile::new_from_binary(&fs::read(&args[0])?, None)?;
    let platform = match args[1].as_str() {
        "snp" => IgvmPlatformType::SEV_SNP,
        "tdx" => IgvmPlatformType::TDX,
        _ => IgvmPlatformType::VSM_ISOLATION,
    };
    let mut measurement = LaunchMeasurement::for_platform(platform)?;
    measurement.set_measurement(MeasurementKind::Launch)?;
    measurement
        .endorse(args[2].parse()?)
        .with(MeasurementKind::Launch)?
        .finish()?;
    let mut serializer = IgvmSerializer::new(&file)?;
    Ok(hex::encode(serializer.add_corim(platform, measurement.build())?))
}

fn check(args: &[String]) -> Result<String> {
    let (corim, comids) = corim::validate::decode_and_validate_at(&fs::read(&args[0])?, 0)?;
    Ok(format!("ok {} {}", corim.id, comids.len()))
}

fn signature(args: &[String]) -> Result<String> {
    let signed = corim::types::signed::decode_signed_corim(&fs::read(&args[0])?)?;
    Ok(format!("ok {:?} {}", signed.protected.alg, signed.payload.is_none()))
}

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let answer = match args.first().map(String::as_str) {
        Some("make") if args.len() == 4 => make(&args[1..]),
        Some("check") if args.len() == 2 => check(&args[1..]),
        Some("signature") if args.len() == 2 => signature(&args[1..]),
        _ => {
            eprintln!("make, check or signature");
            exit(2);
        }
    };
    match answer {
        Ok(text) => println!("{text}"),
        Err(error) => println!("bad: {error}"),
    }
}

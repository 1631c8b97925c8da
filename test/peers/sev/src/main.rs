//! The `sev` crate as a peer: it verifies reports, makes ID blocks, and reads ours.
//!
//!   report REPORT LEAF.der ISSUERS.pem       "ok MEASUREMENT POLICY VERSION" or "bad: why"
//!   id-block ID.pem AUTHOR.pem LD FAMILY IMAGE SVN POLICY
//!                                            four lines of hex: block, auth, ID key digest, author key digest
//!   id-auth BLOCK AUTH                       "ok" if both signatures of an ID block and its author verify
use std::{env, error::Error, fs, process::exit};

use openssl::{
    bn::BigNum,
    ec::{EcGroup, EcKey},
    ecdsa::EcdsaSig,
    nid::Nid,
    sha::sha384,
    x509::X509,
};
use sev::{
    certs::snp::{ca, ecdsa::Signature, Certificate, Chain, Verifiable},
    firmware::guest::{AttestationReport, GuestPolicy},
    measurement::{
        idblock::snp_calculate_id,
        idblock_types::{FamilyId, IdAuth, ImageId},
        snp::SnpLaunchDigest,
    },
    parser::ByteParser,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn report(args: &[String]) -> Result<String> {
    let bytes: [u8; 1184] = fs::read(&args[0])?.as_slice().try_into()?;
    let report = AttestationReport::from_bytes(&bytes)?;
    let pem = fs::read(&args[2])?;
    let issuers = X509::stack_from_pem(&pem)?;
    let certificate = |x509: &X509| -> Result<Certificate> { Ok(Certificate::from_der(&x509.to_der()?)?) };
    // ASK or ASVK first, then ARK, as AMD's key server gives them.
    let chain = Chain {
        ca: ca::Chain {
            ask: certificate(&issuers[0])?,
            ark: certificate(&issuers[1])?,
        },
        vek: Certificate::from_der(&fs::read(&args[1])?)?,
    };
    (&chain, &report).verify()?;
    let policy: u64 = report.policy.into();
    Ok(format!(
        "ok {} {:x} {}",
        hex::encode(report.measurement),
        policy,
        report.version
    ))
}

fn id_block(args: &[String]) -> Result<String> {
    let measurement = SnpLaunchDigest::new(hex::decode(&args[2])?.as_slice().try_into()?);
    let family = FamilyId::new(hex::decode(&args[3])?.as_slice().try_into()?);
    let image = ImageId::new(hex::decode(&args[4])?.as_slice().try_into()?);
    let made = snp_calculate_id(
        Some(measurement),
        Some(family),
        Some(image),
        Some(args[5].parse()?),
        Some(GuestPolicy::from(args[6].parse::<u64>()?)),
        args[0].clone().into(),
        args[1].clone().into(),
    )?;
    Ok([
        hex::encode(made.id_block.to_bytes()?),
        hex::encode(made.id_auth.to_bytes()?),
        hex::encode(made.id_key_digest.to_bytes()?),
        hex::encode(made.auth_key_digest.to_bytes()?),
    ]
    .join("\n"))
}

/// A number of the firmware: 72 bytes, little-endian.
fn number(bytes: &[u8]) -> Result<BigNum> {
    let big: Vec<u8> = bytes.iter().rev().copied().collect();
    Ok(BigNum::from_slice(&big)?)
}

fn verifies(key: &[u8], message: &[u8], signature: &[u8]) -> Result<bool> {
    let group = EcGroup::from_curve_name(Nid::SECP384R1)?;
    let key = EcKey::from_public_key_affine_coordinates(
        &group,
        number(&key[4..76])?.as_ref(),
        number(&key[76..148])?.as_ref(),
    )?;
    let bytes: [u8; 512] = signature.try_into()?;
    let signature = EcdsaSig::try_from(&Signature::from_bytes(&bytes)?)?;
    Ok(signature.verify(&sha384(message), &key)?)
}

fn id_auth(args: &[String]) -> Result<String> {
    let block = fs::read(&args[0])?;
    let auth: [u8; 4096] = fs::read(&args[1])?.as_slice().try_into()?;
    if IdAuth::from_bytes(&auth)?.to_bytes()? != auth {
        return Err("the crate writes the ID authentication otherwise".into());
    }
    if !verifies(&auth[0x240..0x644], &block, &auth[0x40..0x240])? {
        return Err("the ID block's signature".into());
    }
    if auth[0x880] != 0 && !verifies(&auth[0x880..0xc84], &auth[0x240..0x644], &auth[0x680..0x880])? {
        return Err("the author's signature".into());
    }
    Ok("ok".into())
}

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let answer = match args.first().map(String::as_str) {
        Some("report") if args.len() == 4 => report(&args[1..]),
        Some("id-block") if args.len() == 8 => id_block(&args[1..]),
        Some("id-auth") if args.len() == 3 => id_auth(&args[1..]),
        _ => {
            eprintln!("report, id-block or id-auth");
            exit(2);
        }
    };
    match answer {
        Ok(text) => println!("{text}"),
        Err(error) => println!("bad: {error}"),
    }
}

// go-sev-guest as a peer: it verifies reports and validates what an ID block's keys put into them.
//
//	report REPORT LEAF.der ISSUERS.pem DATE   "ok MEASUREMENT POLICY VERSION" or "bad: why"
//	key PUBLIC.pem                            the SHA-384 of the key in the firmware's form
package main

import (
	"crypto/ecdsa"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"time"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/kds"
	spb "github.com/google/go-sev-guest/proto/sevsnp"
	"github.com/google/go-sev-guest/verify"
	"github.com/google/go-sev-guest/verify/trust"
)

func report(args []string) (string, error) {
	raw, err := os.ReadFile(args[0])
	if err != nil {
		return "", err
	}
	parsed, err := abi.ReportToProto(raw)
	if err != nil {
		return "", err
	}
	der, err := os.ReadFile(args[1])
	if err != nil {
		return "", err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return "", err
	}
	bundle, err := os.ReadFile(args[2])
	if err != nil {
		return "", err
	}
	now, err := time.Parse(time.RFC3339, args[3])
	if err != nil {
		return "", err
	}
	askBlock, rest := pem.Decode(bundle)
	arkBlock, _ := pem.Decode(rest)
	chain := &spb.CertificateChain{AskCert: askBlock.Bytes, ArkCert: arkBlock.Bytes}
	signer := abi.VcekReportSigner
	if leaf.Subject.CommonName == "SEV-VLEK" {
		signer = abi.VlekReportSigner
		chain.VlekCert = der
	} else {
		chain.VcekCert = der
	}
	extensions, err := kds.CertificateExtensions(leaf, signer)
	if err != nil {
		return "", err
	}
	product, err := kds.ParseProductName(extensions.ProductName, signer)
	if err != nil {
		return "", err
	}
	line := kds.ProductLine(product)
	root := trust.AMDRootCertsProduct(line)
	if err := root.FromKDSCertBytes(bundle); err != nil {
		return "", err
	}
	err = verify.SnpAttestation(&spb.Attestation{Report: parsed, CertificateChain: chain}, &verify.Options{
		DisableCertFetching: true,
		Now:                 now,
		Product:             product,
		TrustedRoots:        map[string][]*trust.AMDRootCerts{line: {root}},
	})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("ok %s %x %d", hex.EncodeToString(parsed.Measurement), parsed.Policy, parsed.Version), nil
}

func key(args []string) (string, error) {
	text, err := os.ReadFile(args[0])
	if err != nil {
		return "", err
	}
	block, _ := pem.Decode(text)
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return "", err
	}
	bytes, err := abi.EcdsaPublicKeyToBytes(public.(*ecdsa.PublicKey))
	if err != nil {
		return "", err
	}
	digest := sha512.Sum384(bytes)
	return hex.EncodeToString(digest[:]), nil
}

func main() {
	args := os.Args[1:]
	var answer string
	var err error
	switch {
	case len(args) == 5 && args[0] == "report":
		answer, err = report(args[1:])
	case len(args) == 2 && args[0] == "key":
		answer, err = key(args[1:])
	default:
		fmt.Fprintln(os.Stderr, "report or key")
		os.Exit(2)
	}
	if err != nil {
		answer = "bad: " + err.Error()
	}
	fmt.Println(answer)
}

package iptables

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// TestFindBelowRoot: links, absolute ones too, are followed inside the host's root.
func TestFindBelowRoot(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"usr/sbin", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "usr/sbin/xtables-nft-multi"), nil, 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	for from, to := range map[string]string{
		"usr/sbin/iptables": "/etc/alternative", "usr/sbin/iptables-restore": "../../etc/alternative", "etc/alternative": "/sbin/xtables-nft-multi", "sbin": "usr/sbin",
	} {
		if err := os.Symlink(to, filepath.Join(root, from)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", "/nowhere")
	if kind, ok := Host(root).Flavour(); !ok || kind != "iptables-nft" {
		t.Errorf("flavour %q, %v", kind, ok)
	}
	if found, err := Host(root).find("iptables-nft", 4); err != nil || found.command != "/usr/sbin/iptables" {
		t.Errorf("found %+v, %v", found, err)
	}
}

// TestVariantOfAKilledProgram: who cannot say what it is, is neither, and may say it the next time.
func TestVariantOfAKilledProgram(t *testing.T) {
	netnstest.Require(t, "sh")
	for script, want := range map[string]backend.Kind{
		"echo 'iptables v1.8.9 (nf_tables)'": backend.IPTablesNFT,
		"echo 'iptables v1.8.9 (legacy)'":    backend.IPTablesLegacy,
		"echo iptables v1.4.21":              backend.IPTablesLegacy,
		"kill -9 $$":                         "",
	} {
		path := filepath.Join(t.TempDir(), "iptables")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
		kind, err := Host("").flavour(path)
		if kind != want || (want == "") != errors.Is(err, backend.ErrBusy) {
			t.Errorf("%s: %q, %v", script, kind, err)
		}
	}
}

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// FuzzStdin gives any text to everything that reads the configuration: an error is one with a code, and what is accepted can
// be used. Further texts are the files of testdata/stdin.
func FuzzStdin(f *testing.F) {
	paths, err := filepath.Glob("testdata/stdin/*.json")
	if err != nil || len(paths) == 0 {
		f.Fatalf("no corpus: %v", err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, stdin []byte) {
		fuzzValid(t, stdin)
		conf, err := parseConf(stdin)
		if err != nil {
			wantCoded(t, err)
			return
		}
		if conf.MasqChain == "" || conf.CNIVersion == "" {
			t.Errorf("without a chain or a version: %+v", conf)
		}
		if err := conf.validate(); err != nil {
			wantCoded(t, err)
		}
		if _, _, err := (attachment.Attachment{Asked: conf.asked()}).Decide(policy.AllowAnnotations); err != nil {
			wantCoded(t, cniError(err))
		}
		if conf.node() == nil {
			t.Error("no node")
		}
		fuzzPrevious(t, conf)
	})
}

func fuzzPrevious(t *testing.T, conf *netConf) {
	previous, err := parsePrevious(conf)
	if err != nil {
		wantCoded(t, err)
		return
	}
	for _, a := range previous.Addresses("eth0", "/run/netns/x") {
		if !a.IsValid() || a.Is4In6() || a.Zone() != "" {
			t.Errorf("address %q", a)
		}
	}
	var out bytes.Buffer
	for _, version := range supported.SupportedVersions() {
		out.Reset()
		if err := printResult(&out, previous, version); err != nil {
			wantCoded(t, err)
			continue
		}
		if !json.Valid(out.Bytes()) {
			t.Errorf("printed in %s: %q", version, out.Bytes())
		}
	}
}

func fuzzValid(t *testing.T, stdin []byte) {
	valid, known, err := validAttachments(stdin)
	if (err != nil || !known) && len(valid) > 0 {
		t.Errorf("known %v, error %v, and yet %v", known, err, valid)
	}
}

// wantCoded fails unless a runtime can tell what the error is.
func wantCoded(t *testing.T, err error) {
	coded, ok := err.(*types.Error) //nolint:errorlint // the type is what is printed
	if !ok || coded.Code == 0 || coded.Msg == "" {
		t.Errorf("error without a code or a message: %#v", err)
	}
}

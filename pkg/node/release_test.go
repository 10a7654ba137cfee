package node

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// TestFixtureOfTheFirstRelease: what 0.1.0's plugin and agent wrote (testdata/0.1.0, but for the places in capitals) is read as what it
// says: its pods are attached and detached, its decision and its policy are obeyed.
func TestFixtureOfTheFirstRelease(t *testing.T) {
	netnstest.Require(t, "nft")
	k := newKernel(t, "nft", Options{})
	pod := netnstest.NewSpace(t, "pod")
	at := attachment.StatNetNS(pod.Path)
	places := strings.NewReplacer("NETNS", pod.Path, "DEVICE", strconv.FormatUint(at.Device, 10), "INODE", strconv.FormatUint(at.Inode, 10), "BOOT", bootID())
	for from, to := range map[string]string{"attachments": k.records.Dir, ".": k.stateDir, "./policy": k.dataDir} {
		paths, err := filepath.Glob(filepath.Join("testdata/0.1.0", strings.TrimSuffix(from, "policy"), "*.json"))
		if err != nil || len(paths) < 2 {
			t.Fatalf("%v, %v", paths, err)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(to, filepath.Base(path)), places.Replace(string(data)))
		}
	}
	records, err := k.Records()
	if err != nil || len(records) != 2 || len(records[0].Addresses) != 2 || records[0].NetNS != at {
		t.Fatalf("records: %+v, %v", records, err)
	}
	if d, ok := k.Decision(); !ok || d.Kind != backend.NFTables || !d.Features.RandomFully {
		t.Errorf("decision: %+v, %v", d, ok)
	}
	settings := policy.DefaultSettings()
	settings.IPv6 = true
	want := policy.Default(settings)
	if got := k.policy(); !got.Equal(want) {
		t.Errorf("policy: %+v, want %+v", got, want)
	}
	err = k.Do(func() error {
		ctx, cancel := context.WithTimeout(t.Context(), netnstest.Limit(20*time.Second))
		defer cancel()
		if _, err := k.Sync(ctx, want); err != nil {
			return err
		}
		view, err := k.Look(ctx, want)
		if err != nil || len(view.Drift) > 0 || len(view.Attachments) != 2 {
			t.Errorf("%+v, %v", view, err)
		}
		for _, a := range records {
			if err := k.Detach(ctx, a.Owner); err != nil {
				t.Errorf("DEL of %s: %v", a.ContainerID, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if left := k.Run(t, "nft", "list", "table", "inet", "ip-masq-agent"); strings.Contains(left, "10.1.0.") || strings.Contains(left, "fd00:1::") {
		t.Errorf("left:\n%s", left)
	}
	if left, _ := k.records.List(); len(left) > 0 {
		t.Errorf("left: %+v", left)
	}
}

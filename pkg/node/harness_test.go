package node

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/registry"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// kernel is an empty network namespace with a Node on it, whose plain iptables is of one variant.
type kernel struct {
	*netnstest.Space
	*Node
	logged strings.Builder
}

// newKernel changes the environment of the process, because the backends look there; so its tests do not run side by side.
func newKernel(t *testing.T, variant string, o Options) *kernel {
	t.Helper()
	netnstest.Require(t, "iptables-nft", "iptables-legacy")
	k := &kernel{Space: netnstest.NewSpace(t, "node")}
	t.Setenv("PATH", netnstest.IPTables(t, variant))
	t.Setenv("XTABLES_LOCKFILE", filepath.Join(t.TempDir(), "xtables.lock"))
	k.SetPATH(os.Getenv("PATH"))
	dir := t.TempDir()
	if o.StateDir == "" {
		o.StateDir = filepath.Join(dir, "state")
	}
	if o.DataDir == "" {
		o.DataDir = filepath.Join(dir, "data")
	}
	if o.Choice == "" {
		o.Choice = registry.Auto
	}
	o.Owner, o.Defaults = true, policy.DefaultSettings()
	o.Log = slog.New(slog.NewTextHandler(&k.logged, nil))
	k.Node = New(o)
	return k
}

// sync is Sync inside the namespace.
func (k *kernel) sync(t *testing.T) (result Result, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	doErr := k.Do(func() error {
		result, err = k.Sync(ctx, policy.Default(policy.DefaultSettings()))
		return nil
	})
	return result, errors.Join(err, doErr)
}

// mustSync is sync where an error is the test's.
func (k *kernel) mustSync(t *testing.T) Result {
	t.Helper()
	result, err := k.sync(t)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// rules is what one variant holds of our chains.
func (k *kernel) rules(t *testing.T, variant string) string {
	t.Helper()
	return k.Run(t, "iptables-"+variant, "-t", "nat", "-S")
}

// attachPod puts an attachment on record, without rules.
func (k *kernel) attachPod(t *testing.T, container, address string, ns attachment.NetNS) attachment.Attachment {
	t.Helper()
	return k.put(t, attachment.Attachment{
		Owner: attachment.Owner{Network: "pods", ContainerID: container, IfName: "eth0"}, NetNS: ns,
		Addresses: []netip.Addr{netip.MustParseAddr(address)},
	})
}

// attachTo does so for a network of another name.
func (k *kernel) attachTo(t *testing.T, network, address string) attachment.Attachment {
	t.Helper()
	return k.put(t, attachment.Attachment{
		Owner:     attachment.Owner{Network: network, ContainerID: "c", IfName: "eth0"},
		Addresses: []netip.Addr{netip.MustParseAddr(address)},
	})
}

func (k *kernel) put(t *testing.T, a attachment.Attachment) attachment.Attachment {
	t.Helper()
	if err := k.records.Put(a); err != nil {
		t.Fatal(err)
	}
	return a
}

func write(t *testing.T, path, content string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(content), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

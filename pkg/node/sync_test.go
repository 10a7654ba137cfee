package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// eachVariant runs a test once per variant of iptables.
func eachVariant(t *testing.T, test func(t *testing.T, variant string)) {
	t.Helper()
	testkit.Each(t, testkit.IPTablesVariants(), func(t *testing.T, v testkit.Variant) { test(t, v.Name) })
}

// TestSyncDropsTheDead: an attachment whose namespace is gone goes with its rules; one whose namespace lives stays, and so does
// one of which nothing can be proved.
func TestSyncDropsTheDead(t *testing.T) {
	eachVariant(t, func(t *testing.T, variant string) {
		k := newKernel(t, variant, Options{})
		alive, dying := netnstest.NewSpace(t, "alive"), netnstest.NewSpace(t, "dying")
		k.attachPod(t, "alive", "10.244.0.2", attachment.StatNetNS(alive.Path))
		dead := k.attachPod(t, "dying", "10.244.0.3", attachment.StatNetNS(dying.Path))
		k.attachPod(t, "unknown", "10.244.0.4", attachment.NetNS{})
		if got := k.mustSync(t); got.Pods != 3 || strings.Count(k.rules(t, variant), "-g IP-MASQ-AGENT") != 3 {
			t.Fatalf("%+v\n%s", got, k.rules(t, variant))
		}
		dying.Remove()
		if got := k.mustSync(t); got.Pods != 2 {
			t.Errorf("%d pods, want 2", got.Pods)
		}
		rules := k.rules(t, variant)
		if strings.Contains(rules, "10.244.0.3/32") || strings.Count(rules, "-g IP-MASQ-AGENT") != 2 {
			t.Errorf("rules\n%s", rules)
		}
		if _, err := k.records.Get(dead.ID()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("its record: %v", err)
		}
		if !strings.Contains(k.logged.String(), "removing an attachment whose network namespace is gone") {
			t.Errorf("logged\n%s", k.logged.String())
		}
	})
}

// TestSyncSkipsBrokenRecords: they do not stop the others, and the rule of a broken record stays.
func TestSyncSkipsBrokenRecords(t *testing.T) {
	eachVariant(t, func(t *testing.T, variant string) {
		k := newKernel(t, variant, Options{})
		broken := k.attachPod(t, "broken", "10.244.0.2", attachment.NetNS{})
		k.mustSync(t)
		write(t, filepath.Join(k.records.Dir, string(broken.ID())+".json"), `{"network":"po`)
		k.attachPod(t, "good", "10.244.0.3", attachment.NetNS{})
		k.mustSync(t)
		rules := k.rules(t, variant)
		for _, source := range []string{"-s 10.244.0.2/32", "-s 10.244.0.3/32"} {
			if strings.Count(rules, source) != 1 {
				t.Errorf("want %s once in\n%s", source, rules)
			}
		}
		if !strings.Contains(k.logged.String(), "a record was set aside") {
			t.Errorf("logged\n%s", k.logged.String())
		}
	})
}

// TestSyncWithoutReadableRecords: a directory of records that is a file says nothing about pods, whose rules stay.
func TestSyncWithoutReadableRecords(t *testing.T) {
	eachVariant(t, func(t *testing.T, variant string) {
		k := newKernel(t, variant, Options{})
		k.attachPod(t, "a", "10.244.0.2", attachment.NetNS{})
		k.mustSync(t)
		if err := os.RemoveAll(k.records.Dir); err != nil {
			t.Fatal(err)
		}
		write(t, k.records.Dir, "")
		if _, err := k.sync(t); err != nil {
			t.Logf("sync says: %v", err)
		}
		if rules := k.rules(t, variant); !strings.Contains(rules, "-s 10.244.0.2/32") || !strings.Contains(rules, "10.0.0.0/8") {
			t.Errorf("rules\n%s", rules)
		}
	})
}

// TestSyncPersistsOnce: the policy is written when it is not there as it should be, and else not, by this process and the next.
func TestSyncPersistsOnce(t *testing.T) {
	k := newKernel(t, "nft", Options{})
	path := filepath.Join(k.dataDir, policyFile)
	k.mustSync(t)
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, process := range []string{"the same", "another"} {
		if process == "another" {
			k.Node = New(Options{StateDir: k.stateDir, DataDir: k.dataDir, Choice: k.choice, Owner: true, Defaults: k.defaults})
		}
		k.mustSync(t)
		if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
			t.Errorf("%s process wrote the same policy again, %v", process, err)
		}
	}
	write(t, path, `{"settings":`)
	k.Node = New(Options{StateDir: k.stateDir, DataDir: k.dataDir, Choice: k.choice, Owner: true, Defaults: k.defaults})
	k.mustSync(t)
	if _, err := k.LoadPolicy(); err != nil {
		t.Errorf("after a repair: %v", err)
	}
}

// TestSyncOnAFullDisk: the rules are put in place, and the error says what is missing for the next boot.
func TestSyncOnAFullDisk(t *testing.T) {
	eachVariant(t, func(t *testing.T, variant string) {
		full := fullDisk(t)
		k := newKernel(t, variant, Options{DataDir: full})
		_, err := k.sync(t)
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "the rules are in place, but a reboot would lose them") {
			t.Errorf("error %v", err)
		}
		if rules := k.rules(t, variant); !strings.Contains(rules, "10.0.0.0/8") || !strings.Contains(rules, "-j IP-MASQ-AGENT-PODS") {
			t.Errorf("rules\n%s", rules)
		}
		if entries, _ := os.ReadDir(full); len(entries) != 1 {
			t.Errorf("left behind: %v", entries)
		}
		if err := os.Remove(filepath.Join(full, "ballast")); err != nil {
			t.Fatal(err)
		}
		k.mustSync(t)
		if _, err := k.LoadPolicy(); err != nil {
			t.Errorf("with room again: %v", err)
		}
	})
}

// TestSyncOnAFullStateDisk: nothing can be recorded, so nothing may be chosen; the error is clear, and what stands stays.
func TestSyncOnAFullStateDisk(t *testing.T) {
	full := fullDisk(t)
	k := newKernel(t, "nft", Options{StateDir: full})
	if _, err := k.sync(t); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("error %v", err)
	}
}

// fullDisk is a small tmpfs without a free byte.
func fullDisk(t *testing.T) string {
	t.Helper()
	netnstest.Require(t, "mount")
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=64k,mode=755"); err != nil {
		t.Fatal(err)
	}
	netnstest.OnExit(t, func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	ballast, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer ballast.Close()
	for err == nil {
		_, err = ballast.Write(make([]byte, 4096))
	}
	return dir
}

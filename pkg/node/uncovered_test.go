package node

import (
	"errors"
	"io/fs"
	"os"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// TestUncovered: a living pod that the runtime knows is uncovered until it is adopted, one that is gone, on record or deleted is not;
// without a cache nothing is known. Every step that changes the number changes the stamp.
func TestUncovered(t *testing.T) {
	c := newCache(t)
	k := newKernel(t, "nft", Options{Runtime: c.Cache})
	alive := netnstest.NewSpace(t, "alive")
	stamp := ""
	want := func(when string, number int) {
		t.Helper()
		var got int
		err := k.Do(func() error {
			uncovered, err := k.Uncovered()
			got = len(uncovered)
			return err
		})
		if err != nil || got != number {
			t.Errorf("%s: %d uncovered, want %d; %v", when, got, number, err)
		}
		if now := k.PodsStamp(); now == stamp {
			t.Errorf("%s: the stamp is the same", when)
		} else {
			stamp = now
		}
	}
	k.mustSync(t)
	want("at first", 0)
	a := pod("pods", "a", "10.1.0.2")
	c.name(t, a, alive.Path)
	c.name(t, pod("pods", "gone", "10.1.0.3"), alive.Path+"-gone")
	c.name(t, pod("pods", "unspecified", "0.0.0.0"), alive.Path)
	want("with a pod that nobody attached", 1)
	k.mustSync(t)
	want("adopted", 0)
	if err := k.records.Delete(a.ID()); err != nil {
		t.Fatal(err)
	}
	want("with its record lost", 1)
	if err := os.RemoveAll(c.Dir); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Uncovered(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a cache: %v", err)
	}
}

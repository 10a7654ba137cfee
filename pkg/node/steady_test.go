package node

import (
	"context"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/registry"
)

// steadyKernel is a node whose last Sync found nothing to do and is remembered.
func steadyKernel(t *testing.T, choice registry.Choice) *kernel {
	t.Helper()
	k := newKernel(t, "nft", Options{Choice: choice})
	k.mustSync(t)
	k.mustSync(t)
	time.Sleep(fresh)
	k.mustSync(t)
	if !k.last.valid {
		t.Fatal("a Sync without a change, of a generation that is not fresh, is not remembered")
	}
	return k
}

// leads matches a root rule of either backend, as nft lists it.
var leads = regexp.MustCompile(`(jump IP-MASQ-AGENT-PODS|@pods4 goto IP-MASQ-AGENT)`)

// TestSteadyIsReadInFullEveryTenthTime pretends that the last Sync read rules that its generation did not show yet: another program
// flushes the chain, and the generation after that counts as the one that was read.
func TestSteadyIsReadInFullEveryTenthTime(t *testing.T) {
	for choice, flush := range map[registry.Choice]string{
		"iptables": "flush chain ip nat POSTROUTING", "nftables": "flush chain inet ip-masq-agent postrouting",
	} {
		t.Run(string(choice), func(t *testing.T) {
			k := steadyKernel(t, choice)
			k.Run(t, "nft", flush)
			b, _, _ := k.current()
			err := k.Do(func() error {
				k.last.generation, _ = generationOf(context.Background(), b)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			for turn := 1; ; turn++ {
				k.mustSync(t)
				if leads.MatchString(k.Run(t, "nft", "list", "ruleset")) {
					t.Logf("read in full at Sync %d", turn)
					return
				}
				if turn == fullEvery {
					t.Fatalf("%d Syncs believed a reading that was never true", turn)
				}
			}
		})
	}
}

// TestFreshGenerationIsNotRemembered: what was read right after another program's change is read again.
func TestFreshGenerationIsNotRemembered(t *testing.T) {
	k := steadyKernel(t, "nftables")
	k.Run(t, "nft", "add", "table", "inet", "foreign")
	k.mustSync(t)
	if k.last.valid {
		t.Error("a generation that is younger than 50 ms is remembered")
	}
	time.Sleep(fresh)
	k.mustSync(t)
	if !k.last.valid {
		t.Error("the same generation is not remembered later")
	}
}

// TestSteadyAfterAnUnreadableRecord: it is set aside by one Sync, and the next ones need not read again.
func TestSteadyAfterAnUnreadableRecord(t *testing.T) {
	k := steadyKernel(t, registry.NFTables)
	write(t, filepath.Join(k.records.Dir, string(pod("pods", "broken").ID())+".json"), "{")
	for range 3 {
		k.mustSync(t)
		time.Sleep(max(fresh, attachment.RacyTime))
	}
	if !k.last.valid {
		t.Error("the node is never steady again")
	}
	if n := strings.Count(k.logged.String(), "a record was set aside"); n != 1 {
		t.Errorf("named %d times, want once", n)
	}
}

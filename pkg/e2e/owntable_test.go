package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// TestForeignChainsInOurTable: other software's chains and maps in our table, each leading to the next, hold up neither the
// agent's repairs nor a pod's ADD without an agent.
func TestForeignChainsInOurTable(t *testing.T) {
	eachOf(t, testkit.Only(backend.NFTables), func(t *testing.T, r *rig) {
		const intrude = `nft 'table inet ip-masq-agent { chain zz { accept; }; chain bb { jump zz; };
			map m { type ipv4_addr : verdict; elements = { 10.9.9.9 : jump bb }; }; chain aa { jump bb; ip saddr vmap @m; }; }
			flush chain inet ip-masq-agent IP-MASQ-AGENT'`
		first := r.attached(t, "first")
		r.sh(t, intrude)
		second := r.attached(t, "second")
		for _, p := range []*pod{first, second} {
			r.wantSeen(t, p, nodeAddress)
		}
		r.Write(t, never)
		agent := r.startReady(t)
		for range 3 {
			r.sh(t, intrude)
			r.eventually(t, agent, "repaired", func() bool {
				text := r.Run(t, "nft", "list", "table", "inet", "ip-masq-agent")
				return strings.Contains(text, "masquerade") && !strings.Contains(text, "chain zz")
			})
			r.wantSeen(t, first, nodeAddress)
		}
	})
}

// TestTableOfAnotherProcess: a table of our name that a process owns cannot be replaced; the agent names it, and has its own
// within a few seconds after that process ended, although the kernel reports nothing then.
func TestTableOfAnotherProcess(t *testing.T) {
	eachOf(t, testkit.Only(backend.NFTables), func(t *testing.T, r *rig) {
		var owner *nfnl.Conn
		err := r.Do(func() (err error) {
			if owner, err = nfnl.Dial(); err != nil {
				return err
			}
			b := nfnl.NewBatch()
			b.AddTable("ip-masq-agent", 2, unix.NLM_F_EXCL) // NFT_TABLE_F_OWNER
			return owner.Commit(b)
		})
		if err != nil {
			t.Fatal(err)
		}
		r.Write(t, "resyncInterval: 2s\n")
		agent := r.Start(t, netnstest.Cmd{Args: r.Command("run")})
		r.eventually(t, agent, "named", func() bool {
			status, body := r.Probe("/readyz")
			return status == http.StatusServiceUnavailable && strings.Contains(body, "owner flag")
		})
		time.Sleep(3 * time.Second)
		_ = owner.Close()
		r.eventually(t, agent, "ready", func() bool { status, _ := r.Probe("/readyz"); return status == http.StatusOK })
		p := r.attached(t, "pod")
		r.wantSeen(t, p, nodeAddress)
	})
}

package agent

import (
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// TestAuthors reads as: who wrote before a sync and during it, and who is named.
func TestAuthors(t *testing.T) {
	nft, own, plugin, restore := nfnl.Writer{PID: 10, Name: "nft"}, nfnl.Writer{PID: 1, Name: "ip-masq-agent"}, nfnl.Writer{PID: 2, Name: "ip-masq"}, nfnl.Writer{PID: 3, Name: "iptables-restor"}
	for name, c := range map[string]struct {
		kind           backend.Kind
		before, during []nfnl.Writer
		want           author
	}{
		"nobody":               {backend.NFTables, nil, nil, author{}},
		"one":                  {backend.NFTables, []nfnl.Writer{nft}, []nfnl.Writer{own}, author{"nft", 10}},
		"one, twice":           {backend.NFTables, []nfnl.Writer{nft, nft}, nil, author{"nft", 10}},
		"two processes":        {backend.NFTables, []nfnl.Writer{nft, {PID: 11, Name: "nft"}}, nil, author{"nft", 0}},
		"two programs":         {backend.IPTablesNFT, []nfnl.Writer{nft, restore}, nil, author{"nft, iptables-restor", 0}},
		"agent and plugin":     {backend.NFTables, []nfnl.Writer{own, plugin}, []nfnl.Writer{own}, author{}},
		"a pod's ADD":          {backend.IPTablesNFT, []nfnl.Writer{{PID: 4, Name: "iptables-nft-re"}, nft}, nil, author{"nft", 10}},
		"during the sync":      {backend.IPTablesNFT, nil, []nfnl.Writer{restore, nft, own}, author{"nft", 10}},
		"what the sync starts": {backend.IPTablesNFT, nil, []nfnl.Writer{restore, own}, author{}},
		"legacy":               {backend.IPTablesLegacy, []nfnl.Writer{nft}, nil, author{}},
	} {
		got := authorOf(c.before, isAgent)
		if l := (writerLog{pending: c.before}); len(c.during) == 0 {
			got = l.end(c.kind, true, false)
		} else if got.name == "" {
			got = authorOf(c.during, func(w nfnl.Writer) bool { return isAgent(w) || isIPTables(w) })
		}
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	failing := writerLog{pending: []nfnl.Writer{nft}}
	failing.end(backend.NFTables, false, true)
	if got := failing.end(backend.NFTables, true, false); got.name != "nft" {
		t.Errorf("after a sync that failed: %+v", got)
	}
	if got := failing.end(backend.NFTables, true, false); got.name != "" {
		t.Errorf("told twice: %+v", got)
	}
}

// TestOwnObjects: a change of any chain of the policy's can be a reason to repair, and so can one of POSTROUTING.
func TestOwnObjects(t *testing.T) {
	own := ownObjects(policy.DefaultSettings())
	for place, want := range map[[2]string]bool{
		{"ip-masq-agent", "anything"}:   true,
		{"nat", "POSTROUTING"}:          true,
		{"nat", "IP-MASQ-AGENT"}:        true,
		{"nat", "IP-MASQ-AGENT-PODS"}:   true,
		{"nat", "IP-MASQ-AGENT-E12"}:    true,
		{"nat", "KUBE-POSTROUTING"}:     false,
		{"filter", "IP-MASQ-AGENT"}:     false,
		{"nat", "IP-MASQ-AGENT-OTHERS"}: false,
	} {
		if own(place[0], place[1]) != want {
			t.Errorf("table %s, chain %s: %t, want %t", place[0], place[1], !want, want)
		}
	}
}

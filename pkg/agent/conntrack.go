package agent

import (
	"github.com/ip-masq/ip-masq-cni/pkg/conntrack"
	"github.com/ip-masq/ip-masq-cni/pkg/probes"
)

// tellConntrack asks the kernel what it counted, which costs the same however many connections there are. What the kernel does not tell
// has no value.
func tellConntrack(scrape *probes.Scrape) {
	if counters, err := conntrack.Stats(); err == nil {
		scrape.Set("conntrack_insert_failed_total", float64(counters.InsertFailed))
		scrape.Set("conntrack_drops_total", float64(counters.Drop))
		scrape.Set("conntrack_early_drops_total", float64(counters.EarlyDrop))
		scrape.Set("conntrack_clash_resolved_total", float64(counters.ClashResolved))
	}
	for family, setting := range map[string]string{"conntrack_entries": "nf_conntrack_count", "conntrack_limit": "nf_conntrack_max"} {
		if value := netSysctl("netfilter/" + setting); value != nil {
			scrape.Set(family, float64(*value))
		}
	}
}

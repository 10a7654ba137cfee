package agent

import (
	"encoding/binary"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/conntrack"
	"github.com/ip-masq/ip-masq-cni/pkg/probes"
)

// tellConntrack asks the kernel in two messages, which cost the same however many connections there are. What the kernel does not tell
// has no value.
func tellConntrack(scrape *probes.Scrape) {
	if counters, err := conntrack.Stats(); err == nil {
		scrape.Set("conntrack_insert_failed_total", float64(counters.InsertFailed))
		scrape.Set("conntrack_drops_total", float64(counters.Drop))
		scrape.Set("conntrack_early_drops_total", float64(counters.EarlyDrop))
		scrape.Set("conntrack_clash_resolved_total", float64(counters.ClashResolved))
	}
	for typ, value := range conntrackTable() {
		switch typ {
		case ctStatsGlobalEntries:
			scrape.Set("conntrack_entries", value)
		case ctStatsGlobalMaxEntries:
			scrape.Set("conntrack_limit", value)
		}
	}
}

// The question for the table as a whole, and what is in the answer (linux/netfilter/nfnetlink_conntrack.h).
const (
	ctGetStats              = unix.NFNL_SUBSYS_CTNETLINK<<8 | 5
	ctStatsGlobalEntries    = 1
	ctStatsGlobalMaxEntries = 2 // since Linux 4.18
)

// conntrackTable returns the numbers of the answer by their type.
func conntrackTable() map[uint16]float64 {
	request := nl.NewNetlinkRequest(ctGetStats, unix.NLM_F_ACK)
	request.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: unix.NFNETLINK_V0})
	answers, err := request.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return nil
	}
	numbers := map[uint16]float64{}
	for _, answer := range answers {
		if len(answer) < nl.SizeofNfgenmsg {
			continue
		}
		attrs, _ := nl.ParseRouteAttr(answer[nl.SizeofNfgenmsg:])
		for _, a := range attrs {
			if len(a.Value) == 4 {
				numbers[a.Attr.Type&nl.NLA_TYPE_MASK] = float64(binary.BigEndian.Uint32(a.Value))
			}
		}
	}
	return numbers
}

package agent

import (
	"encoding/binary"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/probes"
)

// The messages of ctnetlink about the table as a whole, and what is in the answers (linux/netfilter/nfnetlink_conntrack.h). They are
// about the network namespace of the process.
const (
	ctGetStatsCPU = unix.NFNL_SUBSYS_CTNETLINK<<8 | 4
	ctGetStats    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 5

	ctStatsInsertFailed = 9 // per CPU
	ctStatsDrop         = 10
	ctStatsEntries      = 1 // of all
	ctStatsMaxEntries   = 2 // since Linux 4.18
)

// tellConntrack asks the kernel in two messages, which cost the same however many connections there are. What the kernel does not tell has
// no value.
func tellConntrack(scrape *probes.Scrape) {
	total := askConntrack(ctGetStats, unix.NLM_F_ACK)
	perCPU := askConntrack(ctGetStatsCPU, unix.NLM_F_DUMP)
	for _, m := range []struct {
		family string
		told   map[uint16]float64
		field  uint16
	}{
		{"conntrack_entries", total, ctStatsEntries},
		{"conntrack_limit", total, ctStatsMaxEntries},
		{"conntrack_insert_failed_total", perCPU, ctStatsInsertFailed},
		{"conntrack_drops_total", perCPU, ctStatsDrop},
	} {
		if value, ok := m.told[m.field]; ok {
			scrape.Set(m.family, value)
		}
	}
}

// askConntrack adds up the numbers of all answers, one for each CPU.
func askConntrack(message, flags int) map[uint16]float64 {
	request := nl.NewNetlinkRequest(message, flags)
	request.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: unix.NFNETLINK_V0})
	answers, err := request.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return nil
	}
	sums := map[uint16]float64{}
	for _, answer := range answers {
		if len(answer) < nl.SizeofNfgenmsg {
			continue
		}
		attrs, _ := nl.ParseRouteAttr(answer[nl.SizeofNfgenmsg:])
		for _, a := range attrs {
			if len(a.Value) == 4 {
				sums[a.Attr.Type&nl.NLA_TYPE_MASK] += float64(binary.BigEndian.Uint32(a.Value))
			}
		}
	}
	return sums
}

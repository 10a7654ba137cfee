package agent

import (
	"log/slog"

	"github.com/ip-masq/ip-masq-cni/pkg/autoports"
	"github.com/ip-masq/ip-masq-cni/pkg/node"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// autoPorts are the source ports of "auto". They are chosen again at every sync, by what the kernel says then.
type autoPorts struct {
	nodePorts policy.PortRange
	log       *slog.Logger

	ranges     policy.PortRanges // chosen last
	taken      autoports.Taken   // that they keep clear of
	lastLogged string
}

// choose returns the ports. Where none can be chosen, the error says why, and those that were chosen last stay, at the start the
// persisted ones; without any the kernel chooses.
func (a *autoPorts) choose(n *node.Node) (policy.PortRanges, error) {
	taken, err := autoports.Read(autoports.Sysctls, a.nodePorts)
	var free policy.PortRanges
	if err == nil {
		free, err = taken.Free()
	}
	if err != nil {
		if persisted, loadErr := n.LoadPolicy(); a.ranges == nil && loadErr == nil && persisted.Settings.AutoPorts {
			a.ranges = persisted.Settings.ToPorts
		}
		a.tell(err.Error(), func() {
			a.log.Error("source ports cannot be chosen; the last ones stay", "ports", a.ranges.String(), "error", err)
		})
		return a.ranges, err
	}
	a.ranges, a.taken = free, taken
	a.tell(taken.String(), func() { a.log.Info("source ports chosen", "ports", free.String(), "clearOf", taken.String()) })
	return free, nil
}

// tell logs what is not the same as the last time.
func (a *autoPorts) tell(text string, log func()) {
	if text != a.lastLogged {
		a.lastLogged = text
		log()
	}
}

package agent

import (
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/status"
)

// keptRepairs bounds State.LastRepairs.
const keptRepairs = 10

// repairsOf groups what one sync put back by object and problem, in the order in which it was found.
func repairsOf(at time.Time, objects []backend.Drift, by author) []status.Repair {
	var all []status.Repair
	place := map[RepairKind]int{}
	for _, d := range objects {
		kind := RepairKind{d.Object, d.Problem}
		i, known := place[kind]
		if !known {
			i = len(all)
			place[kind] = i
			repair := status.Repair{Time: at, Object: d.Object, Problem: d.Problem, Detail: d.Detail, By: status.Known(by.name)}
			if by.pid != 0 {
				repair.PID = &by.pid
			}
			all = append(all, repair)
		}
		all[i].Count++
	}
	return all
}

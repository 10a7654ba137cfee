package bench

import (
	"fmt"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
)

// at is the series of a step. What has one step only does that whatever has changed.
func (s *syncer) at(i int) []float64 {
	if s.steps[i] == nil {
		i = stepLoad
	}
	return s.cpu[i]
}

func agentTimes(all []*syncer) *table {
	tab := &table{head: append([]string{""}, stepNames[:]...)}
	for _, s := range all {
		row := []string{s.name}
		for i := range steps {
			row = append(row, number(median(s.at(i))))
		}
		tab.add(row...)
	}
	return tab
}

// agentRatios compares each of our backends with the references of its variant.
func agentRatios(all []*syncer) *table {
	tab := &table{head: append([]string{""}, stepNames[:]...)}
	for _, s := range all {
		for _, reference := range all {
			if !comparable(s, reference) {
				continue
			}
			row := []string{s.name + " ÷ " + reference.name}
			for i := range steps {
				row = append(row, number(ratio(s.at(i), reference.at(i))))
			}
			tab.add(row...)
		}
	}
	return tab
}

// comparable leaves nft -f to the backend that does without iptables.
func comparable(s, reference *syncer) bool {
	return s.kind != "" && reference.kind == "" && s.variant == reference.variant &&
		(reference.name != nftName || s.kind == backend.NFTables)
}

func agentTallies(all []*syncer) *table {
	tab := &table{head: append([]string{""}, stepNames[:]...)}
	for _, s := range all {
		row := []string{s.name}
		for i := range steps {
			if s.steps[i] == nil {
				i = stepLoad
			}
			a := s.asked[i]
			row = append(row, fmt.Sprintf("%d; %s, %s", a.processes, kibibytes(a.sent), kibibytes(a.received)))
		}
		tab.add(row...)
	}
	return tab
}

func kibibytes(n int) string { return number(float64(n) / 1024) }

// agentGoals are those of the backend with sets. That a resync without a change starts no program is one of them.
func agentGoals(r *report, n int, all []*syncer) {
	for _, s := range all {
		if s.kind != flatKind {
			continue
		}
		r.goal(fmt.Sprintf("%s prefixes, %s: unchanged, ms", short(n), s.name), 0.2, median(s.at(stepSame)))
		r.goal(fmt.Sprintf("%s prefixes, %s: unchanged, programs", short(n), s.name), 0, float64(s.asked[stepSame].processes))
		for _, reference := range all {
			if reference.name == nftName && n == 10000 {
				r.goal(fmt.Sprintf("%s prefixes, %s: load over %s", short(n), s.name, nftName), 0.5, ratio(s.at(stepLoad), reference.at(stepLoad)))
				r.goal(fmt.Sprintf("%s prefixes, %s: one changed over %s", short(n), s.name, nftName), 0.1, ratio(s.at(stepEdit), reference.at(stepLoad)))
			}
		}
	}
}

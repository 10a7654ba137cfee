package explain

import (
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/conflicts"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

type rulesetPod = ruleset.Pod

// stage is what one base chain does with the packet.
type stage struct {
	priority int32
	ends     []conflicts.End
}

// tracking are the stages of all base chains. Where connection tracking is switched off, none that translates is asked.
func tracking(steps []conflicts.Step) []stage {
	var all []stage
	for _, s := range steps {
		all = append(all, stage{s.Priority, s.Ends})
	}
	return all
}

// outcome puts base chains together: the first one that gives the packet an address, or ends it, decides. Which of those of one
// priority is asked first nobody can tell, so that all of them may decide.
func outcome(stages []stage) []conflicts.End {
	var all []conflicts.End
	passed := conflicts.End{Effect: conflicts.Passes}
	for len(stages) > 0 {
		same := 1
		for same < len(stages) && stages[same].priority == stages[0].priority {
			same++
		}
		passes := true
		for _, s := range stages[:same] {
			through := false
			for _, end := range s.ends {
				if end.Effect != conflicts.Passes {
					all = append(all, end)
					continue
				}
				through = true
				if end.Managed {
					passed = end
				}
			}
			passes = passes && through
		}
		if !passes {
			return all
		}
		stages = stages[same:]
	}
	return append(all, passed)
}

// asked are the base chains up to the one that decides for certain, with all of its priority; those behind it never see the packet.
func asked(steps []conflicts.Step) []conflicts.Step {
	for i, s := range steps {
		if slices.ContainsFunc(s.Ends, passes) {
			continue
		}
		for i++; i < len(steps) && steps[i].Priority == s.Priority; i++ {
		}
		return steps[:i]
	}
	return steps
}

func passes(e conflicts.End) bool { return e.Effect == conflicts.Passes }

// tied reports whether a base chain of the same priority may decide as well.
func tied(steps []conflicts.Step, i int) bool {
	for j, s := range steps {
		if j != i && s.Priority == steps[i].Priority && slices.ContainsFunc(s.Ends, func(e conflicts.End) bool { return !passes(e) }) {
			return true
		}
	}
	return false
}

// effectOf is what all ends have in common; false where they differ.
func effectOf(ends []conflicts.End) (conflicts.Effect, bool) {
	first := ends[0]
	same := !slices.ContainsFunc(ends, func(e conflicts.End) bool { return e.Effect != first.Effect || e.Address != first.Address })
	return first.Effect, same && first.Effect != conflicts.Unknown
}

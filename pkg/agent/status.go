package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/conflicts"
	"github.com/ip-masq/ip-masq-cni/pkg/node"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// nodeStatus is what status prints.
type nodeStatus struct {
	Backend     *backendReport                      `json:"backend"`
	Policy      policy.Policy                       `json:"policy"`
	Origin      Origin                              `json:"origin"`
	ConfigError string                              `json:"configError,omitempty"`
	Drift       []backend.Drift                     `json:"drift"`
	Attachments []attachment.Attachment             `json:"attachments"`
	Incomplete  string                              `json:"incomplete,omitempty"` // what could not be searched for conflicts
	Conflicts   []conflicts.Conflict                `json:"conflicts"`
	Counters    map[policy.Family][]backend.Counter `json:"counters"`
}

type backendReport struct {
	Kind     backend.Kind     `json:"kind"`
	Reason   string           `json:"reason"`
	Features backend.Features `json:"features"`
}

// status shows what is in force and where the kernel differs from it. It exits with 0 whenever it could look.
func (p Program) status(o Options, _ []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), syncTime)
	defer cancel()
	n := newNode(o, discard())
	r, err := p.look(ctx, o, n)
	if err != nil {
		return err
	}
	if o.Format == "json" {
		return p.printJSON(r)
	}
	r.print(p.Stdout)
	return nil
}

func (p Program) look(ctx context.Context, o Options, n *node.Node) (nodeStatus, error) {
	inForce, origin, configErr := p.inForce(o, n)
	view, err := n.Look(ctx, inForce)
	if errors.Is(err, node.ErrNotChosen) {
		view.Drift, err = []backend.Drift{{Object: backend.ObjectChain, Problem: backend.ProblemMissing, Detail: err.Error()}}, nil
	}
	if err != nil {
		return nodeStatus{}, err
	}
	r := nodeStatus{
		Policy: inForce, Origin: origin, Drift: view.Drift, Counters: view.Counters,
		Attachments: append([]attachment.Attachment{}, view.Attachments...),
	}
	found, err := conflicts.Find(ctx, conflictQuery(o, inForce, view.Attachments))
	if err != nil {
		r.Incomplete = err.Error()
	}
	r.Conflicts = append([]conflicts.Conflict{}, found...)
	if view.Decision.Kind != "" {
		r.Backend = &backendReport{view.Decision.Kind, view.Decision.Reason, view.Decision.Features}
	}
	if configErr != nil {
		r.ConfigError = configErr.Error()
	}
	return r, nil
}

// inForce finds the policy that the daemon has: its flags are in the persisted policy, and count unless this call was given
// its own.
func (p Program) inForce(o Options, n *node.Node) (policy.Policy, Origin, error) {
	s := p.commandSource(o, n)
	inForce, err := s.load()
	return inForce, s.origin, err
}

// print writes the report for people.
func (r nodeStatus) print(to io.Writer) {
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(to, format+"\n", args...) }
	if r.Backend == nil {
		line("backend:      none chosen since this node booted")
	} else {
		line("backend:      %s (%s)", r.Backend.Kind, r.Backend.Reason)
	}
	line("policy:       %s", r.Origin)
	if r.ConfigError != "" {
		line("config error: %s", strings.ReplaceAll(r.ConfigError, "\n", "\n              "))
	}
	for _, family := range r.Policy.Settings.Families() {
		for _, d := range r.Policy.Destinations(family) {
			line("              %s", d)
		}
		line("              every other %s destination %s", family, policy.Masquerade)
	}
	line("attachments:  %d", len(r.Attachments))
	for _, a := range r.Attachments {
		line("              %s %s %s %v", a.Network, a.ContainerID, a.IfName, a.Addresses)
	}
	r.printDrift(line)
	for _, c := range r.Conflicts {
		line("conflict:     %s, %s: %s\n              %s", c.Owner, c.Where, c.Rule, c.Fix)
	}
	for _, family := range r.Policy.Settings.Families() {
		for _, c := range r.Counters[family] {
			line("counter:      %s %d packets, %d bytes: %s", family, c.Packets, c.Bytes, c.Rule)
		}
	}
}

func (r nodeStatus) printDrift(line func(string, ...any)) {
	if len(r.Drift) == 0 {
		line("drift:        none, the kernel is equal to the policy")
	}
	for _, d := range r.Drift {
		line("drift:        %s", d)
	}
}

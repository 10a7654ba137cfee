package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/atomicfile"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/registry"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Decision records which backend was chosen on this node since it booted. Whoever comes first writes it under the exclusive
// lock; plugin and agent obey it alike.
type Decision struct {
	BootID   string           `json:"bootID"`
	Kind     backend.Kind     `json:"backend,omitempty"`
	Reason   string           `json:"reason,omitempty"`
	Explicit bool             `json:"explicit,omitempty"` // asked for by the agent's --backend
	Features backend.Features `json:"features"`
	// Former is the kind before a switch, until everything of ours is out of it.
	Former backend.Kind `json:"former,omitempty"`
	// Failure says why nothing could be chosen. It is there for STATUS, which may not probe; the next ADD tries again.
	Failure string `json:"failure,omitempty"`
}

const decisionFile = "backend.json"

// Decision reads the record. It is false where there is none of this boot.
func (n *Node) Decision() (Decision, bool) {
	data, err := os.ReadFile(filepath.Join(n.stateDir, decisionFile))
	if err != nil {
		return Decision{}, false
	}
	var d Decision
	if json.Unmarshal(data, &d) != nil || d.BootID != bootID() {
		return Decision{}, false
	}
	return d, true
}

func (n *Node) saveDecision(d Decision) error {
	d.BootID = bootID()
	data, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode backend decision: %w", err)
	}
	return atomicfile.Write(filepath.Join(n.stateDir, decisionFile), data, 0o644)
}

// bootID tells this boot's decision from one that a state directory on disk kept from the last.
func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id))
}

// usable reports whether the decision answers what this node's user asks for. The agent's explicit choice overrules a record
// that says otherwise; the plugin's overrules only one that nobody asked for.
func (n *Node) usable(d Decision) bool {
	return d.Kind != "" && registry.Known(d.Kind) && (n.choice.Allows(d.Kind) || (d.Explicit && !n.owner))
}

// current opens the backend on record, false where there is none to obey.
func (n *Node) current() (backend.Backend, Decision, bool) {
	d, ok := n.Decision()
	if !ok || !n.usable(d) {
		return nil, d, false
	}
	return n.open(d.Kind), d, true
}

// choose obeys the record or makes it, under the exclusive lock. It is fresh when nothing was on record, and then most
// likely nothing of ours is in the kernel either.
func (n *Node) choose(ctx context.Context, s policy.Settings, family policy.Family) (b backend.Backend, d Decision, fresh bool, err error) {
	b, old, ok := n.current()
	if ok {
		return b, old, false, nil
	}
	d, err = n.probe(ctx, s, family)
	if err != nil {
		old.Failure = err.Error()
		if saveErr := n.saveDecision(old); saveErr != nil {
			n.log("could not record the failed choice of a backend", "error", saveErr)
		}
		return nil, Decision{}, false, err
	}
	if old.Kind != d.Kind {
		d.Former = old.Kind
	}
	if err := n.saveDecision(d); err != nil {
		return nil, Decision{}, false, err
	}
	n.log("chose backend", "backend", d.Kind, "reason", d.Reason)
	return n.open(d.Kind), d, old.Kind == "", nil
}

// probe tries the candidates in order until one works.
func (n *Node) probe(ctx context.Context, s policy.Settings, family policy.Family) (Decision, error) {
	var failures []error
	for _, c := range registry.Candidates(n.host, n.choice, s, family) {
		features, err := n.open(c.Kind).Probe(ctx, family)
		if err == nil {
			explicit := n.choice != registry.Auto
			if explicit {
				c.Reason = "asked for " + string(n.choice)
			}
			return Decision{Kind: c.Kind, Reason: c.Reason, Explicit: explicit && n.owner, Features: features}, nil
		}
		failures = append(failures, fmt.Errorf("%s: %w", c.Kind, err))
		if errors.Is(err, backend.ErrBusy) || ctx.Err() != nil {
			return Decision{}, errors.Join(failures...)
		}
	}
	return Decision{}, fmt.Errorf("%w: no backend works here (asked for %s): %w", ErrNoBackend, n.choice, errors.Join(failures...))
}

// ErrNoBackend means that every backend that was asked for was tried, and none works on this host.
var ErrNoBackend = errors.New("no usable backend")

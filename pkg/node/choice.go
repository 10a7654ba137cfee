package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/atomicfile"
	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/registry"
	"github.com/ip-masq/ip-masq-cni/pkg/plainfile"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Decision records which backend and chain are in use on this node since it booted. Whoever comes first writes it under the
// exclusive lock; plugin and agent obey it alike.
type Decision struct {
	Version  int              `json:"version"`
	BootID   string           `json:"bootID"`
	Kind     backend.Kind     `json:"backend,omitempty"`
	Chain    string           `json:"chain,omitempty"` // empty in records of releases that did not write it
	Reason   string           `json:"reason,omitempty"`
	Features backend.Features `json:"features"`
	// Former is the kind before a switch, and FormerChains are shared chains of other names, until everything is out of them.
	Former       backend.Kind `json:"former,omitempty"`
	FormerChains []string     `json:"formerChains,omitempty"`
	// Failure says why nothing could be chosen. It is there for STATUS, which may not probe; the next ADD tries again.
	Failure  string    `json:"failure,omitempty"`
	FailedAt time.Time `json:"failedAt,omitzero"`
	// RuntimeDir is the runtime's result cache, in which an agent looks for pods that are not on record.
	RuntimeDir string `json:"runtimeDir,omitempty"`
}

const decisionFile = "backend.json"

func (n *Node) decisionPath() string { return filepath.Join(n.stateDir, decisionFile) }

// Decision reads the record. It is false where there is none of this boot that can be used.
func (n *Node) Decision() (Decision, bool) {
	data, err := plainfile.Read(n.decisionPath())
	if err != nil {
		return Decision{}, false
	}
	var d Decision
	err = json.Unmarshal(data, &d)
	if versionErr := attachment.CheckFormat(d.Version); versionErr != nil {
		err = versionErr
	}
	if err != nil {
		n.warnOnce(fmt.Sprintf("%s cannot be used: the backend is chosen again", n.decisionPath()), err)
		return Decision{}, false
	}
	if d.BootID != bootID() {
		return Decision{}, false
	}
	if policy.ValidateChain(d.Chain) != nil {
		d.Chain = ""
	}
	return d, true
}

// warnOnce logs what every reading of a file finds again.
func (n *Node) warnOnce(message string, err error) {
	if text := message + err.Error(); text != n.warned {
		n.warned = text
		n.log.Warn(message, "error", err)
	}
}

func (n *Node) saveDecision(d Decision) error {
	d.Version, d.BootID = attachment.FormatVersion, bootID()
	data, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode backend decision: %w", err)
	}
	return atomicfile.Write(n.decisionPath(), data, 0o644)
}

// bootID tells this boot's decision from one that a state directory on disk kept from the last.
var bootID = sync.OnceValue(func() string {
	id, _ := plainfile.Read("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id))
})

var (
	// ErrNoBackend means that every backend that was asked for was tried, and none works on this host.
	ErrNoBackend = errors.New("no usable backend")
	// ErrOtherBackend means that the plugin's entry asks for another backend than the one in use, which only the agent switches.
	ErrOtherBackend = errors.New("this node uses another backend")
	// ErrNotChosen means that there is no record to obey: nobody chose a backend since the node booted.
	ErrNotChosen = errors.New("no backend was chosen on this node since it booted")
)

// current opens the backend on record. The agent's explicit choice overrules the record (ErrNotChosen), the plugin's does not
// (ErrOtherBackend): two conflists that ask for different backends would switch the whole node with every pod.
func (n *Node) current() (backend.Backend, Decision, error) {
	d, ok := n.Decision()
	switch {
	case !ok || !registry.Known(d.Kind):
		return nil, d, ErrNotChosen
	case n.choice.Allows(d.Kind):
		return n.open(d.Kind), d, nil
	case n.owner:
		return nil, d, ErrNotChosen
	}
	return nil, d, fmt.Errorf("%w: the ip-masq entry asks for backend %q, and %q is in use since this node booted (%s): "+
		"remove the key \"backend\" from the entry, or switch the node by the agent's --backend", ErrOtherBackend, n.choice, d.Kind, d.Reason)
}

// choose obeys the record or makes it, under the exclusive lock. It is fresh when nothing was on record, and then most
// likely nothing of ip-masq is in the kernel either.
func (n *Node) choose(ctx context.Context, s policy.Settings, family policy.Family) (b backend.Backend, d Decision, fresh bool, err error) {
	b, old, err := n.current()
	if !errors.Is(err, ErrNotChosen) {
		return b, old, false, err
	}
	d, err = n.probe(ctx, s, family)
	if err != nil {
		n.recordFailure(old, err)
		return nil, Decision{}, false, err
	}
	d.Chain, d.FormerChains, d.RuntimeDir = old.Chain, old.FormerChains, old.RuntimeDir
	if old.Kind != d.Kind {
		d.Former = old.Kind
	}
	if err := n.saveDecision(d); err != nil {
		return nil, Decision{}, false, err
	}
	n.log.Info("chose backend", "backend", d.Kind, "reason", d.Reason)
	return n.open(d.Kind), d, old.Kind == "", nil
}

// recordFailure keeps why no backend works here for STATUS. A lock that was held, or time that ran out, says nothing
// about the next ADD.
func (n *Node) recordFailure(d Decision, failure error) {
	if !errors.Is(failure, ErrNoBackend) {
		return
	}
	d.Failure, d.FailedAt = failure.Error(), time.Now()
	if err := n.saveDecision(d); err != nil {
		n.log.Warn("could not record the failed choice of a backend", "error", err)
	}
}

// probe tries the candidates in order until one works.
func (n *Node) probe(ctx context.Context, s policy.Settings, family policy.Family) (Decision, error) {
	var failures []error
	for _, c := range registry.Candidates(n.host, n.choice, s, family) {
		features, err := n.open(c.Kind).Probe(ctx, family)
		if err == nil {
			if n.choice != registry.Auto {
				c.Reason = "asked for " + string(n.choice)
			}
			return Decision{Kind: c.Kind, Reason: c.Reason, Features: features}, nil
		}
		failures = append(failures, fmt.Errorf("%s: %w", c.Kind, err))
		if errors.Is(err, backend.ErrBusy) || ctx.Err() != nil {
			return Decision{}, errors.Join(failures...)
		}
	}
	return Decision{}, fmt.Errorf("%w: no backend works here (asked for %s): %w", ErrNoBackend, n.choice, errors.Join(failures...))
}

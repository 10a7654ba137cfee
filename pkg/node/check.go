package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/registry"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// Check verifies, without writing, that an attachment is behind the policy. It fails with a *backend.Missing.
func (n *Node) Check(ctx context.Context, a attachment.Attachment) error {
	b, decision, err := n.current()
	want := n.single(decision, n.governed(a))
	if len(want.Tables) == 0 {
		return nil // no address of a family that is on: there was nothing to do
	}
	if errors.Is(err, errNotChosen) {
		return &backend.Missing{Part: backend.PartRoot, Detail: err.Error() + ": was ADD ever called?"}
	}
	if err != nil {
		return err
	}
	return b.Verify(ctx, want)
}

// ErrPodsAffected is in the error of Status where pods are attached already.
var ErrPodsAffected = errors.New("pods are attached on this node")

// failureTime is how long Status believes an earlier failure: what was missing may have been installed meanwhile, and a runtime
// whose STATUS fails sends no ADD that would find out.
const failureTime = 30 * time.Second

// Status reports whether an ADD would work now. It writes nothing, takes no lock, and starts one process per family at most. What
// the next ADD would put right, such as an empty chain, is no failure.
func (n *Node) Status(ctx context.Context) error {
	err := n.couldAttach(ctx)
	if records, _ := n.records.List(); err != nil && len(records) > 0 { // a broken one keeps no ADD from working
		err = fmt.Errorf("%w (%w)", err, ErrPodsAffected)
	}
	return err
}

func (n *Node) couldAttach(ctx context.Context) error {
	if err := writable(n.records.Dir); err != nil {
		return err
	}
	s := n.settings()
	b, decision, err := n.current()
	if errors.Is(err, errNotChosen) {
		return n.couldChoose(decision, s)
	}
	if err != nil {
		return err
	}
	for _, family := range s.Families() {
		if err := registry.Installed(n.host, b.Kind(), family); err != nil {
			return err
		}
		if err := n.answers(ctx, b, s, family); err != nil {
			return err
		}
	}
	return nil
}

// couldChoose reports whether the first ADD would find a backend, as far as that can be told without probing.
func (n *Node) couldChoose(d Decision, s policy.Settings) error {
	if age := time.Since(d.FailedAt); d.Failure != "" && age >= 0 && age < failureTime {
		return fmt.Errorf("%w: %s", ErrNoBackend, d.Failure)
	}
	var failures []error
	for _, kind := range n.choice.Kinds() {
		err := registry.Installed(n.host, kind, s.Families()[0])
		if err == nil {
			return nil
		}
		failures = append(failures, err)
	}
	return fmt.Errorf("%w: %w", ErrNoBackend, errors.Join(failures...))
}

// answers reads the shared chain, to see that the backend works at all; what stands in the chain does not matter. A lock that
// another program holds keeps it from being read for a moment, which says nothing about the backend.
func (n *Node) answers(ctx context.Context, b backend.Backend, s policy.Settings, family policy.Family) error {
	_, err := b.Chain(ctx, s, family)
	if errors.Is(err, backend.ErrBusy) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// writable reports why records could not be written to the state directory, or to where it would be made.
func writable(dir string) error {
	for {
		info, err := os.Stat(dir)
		switch {
		case err == nil && !info.IsDir():
			return fmt.Errorf("state directory %s: not a directory", dir)
		case err == nil:
			return hasRoom(dir)
		case !os.IsNotExist(err):
			return fmt.Errorf("state directory: %w", err)
		}
		dir = filepath.Dir(dir)
	}
}

func hasRoom(dir string) error {
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("state directory %s: %w", dir, err)
	}
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) == nil && fs.Blocks > 0 && fs.Bavail == 0 {
		return fmt.Errorf("state directory %s: %w", dir, unix.ENOSPC)
	}
	return nil
}

// GC removes the attachments of one network that valid does not list. Without a list (known is false) only those go whose
// network namespace is provably gone. It goes on after an error and reports all of them.
func (n *Node) GC(ctx context.Context, network string, valid []attachment.Owner, known bool) error {
	release, err := n.exclusive(ctx)
	if err != nil {
		return err
	}
	defer release()
	n.setAsideUnreadable()
	n.pruneDeleted(nil)
	keep := map[attachment.ID]bool{}
	for _, owner := range valid {
		owner.Network = network
		keep[owner.ID()] = true
	}
	dead := func(a attachment.Attachment) bool {
		if known {
			return !keep[a.ID()]
		}
		return a.NetNS.Gone()
	}
	failures := n.collectRecords(ctx, network, dead)
	if known {
		failures = append(failures, n.collectRules(ctx, network, keep)...)
	}
	return errors.Join(failures...)
}

func (n *Node) collectRecords(ctx context.Context, network string, dead func(attachment.Attachment) bool) []error {
	records, err := n.Records()
	failures := []error{err}
	for _, a := range records {
		if a.Network == network && dead(a) {
			_, err := n.detach(ctx, n.settings(), a.ID(), &a)
			failures = append(failures, err)
		}
	}
	return failures
}

// collectRules removes rules of the network whose record is lost.
func (n *Node) collectRules(ctx context.Context, network string, keep map[attachment.ID]bool) []error {
	var failures []error
	s := n.settings()
	for _, p := range n.places(ctx, s) {
		got, err := n.open(p.kind).Observe(ctx, p.in(s), bothFamilies...)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		for _, id := range owners(got.Pods()) {
			if id.Of(network) && !keep[id] && !n.ofOther(id, network) {
				_, err := n.detach(ctx, s, id, nil)
				failures = append(failures, err)
			}
		}
	}
	return failures
}

// ofOther reports whether the owner is on record with another network: ids of two networks may begin alike.
func (n *Node) ofOther(id attachment.ID, network string) bool {
	record, err := n.records.Get(id)
	return err == nil && record.Network != network
}

func owners(pods []ruleset.Pod) []attachment.ID {
	seen := map[attachment.ID]bool{}
	var ids []attachment.ID
	for _, pod := range pods {
		if !seen[pod.Owner] {
			seen[pod.Owner] = true
			ids = append(ids, pod.Owner)
		}
	}
	return ids
}

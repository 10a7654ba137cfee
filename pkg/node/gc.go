package node

import (
	"context"
	"errors"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

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
	failures := []error{n.endOptOuts(ctx, func(a attachment.Attachment) bool { return a.Network == network && dead(a) })}
	failures = append(failures, n.collectRecords(ctx, network, dead)...)
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

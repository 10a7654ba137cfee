package agent

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"github.com/ip-masq/ip-masq-cni/pkg/explain"
	"github.com/ip-masq/ip-masq-cni/pkg/node"
	"github.com/ip-masq/ip-masq-cni/pkg/socket"
)

// explain says what happens to a packet. It asks the daemon, and answers itself where none does, or where flags are given that
// are not the daemon's: who asks by another file or other settings wants to know what they would do.
func (p Program) explain(o Options, _ []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), syncTime)
	defer cancel()
	var a explain.Answer
	daemon, err := askDaemon(ctx, o, func(daemon greeting) error {
		if o.differing(daemon.Flags) != "" {
			return errOtherFlags
		}
		return nil
	}, http.MethodGet, "/v1/explain?"+o.asked.Encode(), &a)
	switch {
	case err != nil && !errors.Is(err, errOtherFlags):
		return err
	case err != nil || !daemon.Responding:
		if a, err = explainer(o, p.inForce(o)).Explain(ctx, o.Question); err != nil {
			return err
		}
		a.Daemon = explain.Daemon{Running: daemon.Running}
	}
	return p.print(o, a, func() { a.Print(p.Stdout) })
}

var errOtherFlags = errors.New("the daemon has other flags")

// serveExplain answers as of the policy that the loop has in force.
func (d *daemon) serveExplain(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), syncTime)
	defer cancel()
	values := r.URL.Query()
	q, err := explain.Parse(values.Get("src"), values.Get("dst"), values.Get("proto"))
	if err != nil {
		socket.Refuse(w, http.StatusBadRequest, err)
		return
	}
	state := d.State()
	f := state.inForce()
	a, err := explainer(d.options, f).Explain(ctx, q)
	if err != nil {
		socket.Refuse(w, http.StatusNotFound, err)
		return
	}
	a.Daemon = explain.Daemon{Running: true, Responding: true}
	socket.Answer(w, a)
}

// asked is the question in the form of a request.
func asked(src, dst, proto string) url.Values {
	return url.Values{"src": {src}, "dst": {dst}, "proto": {proto}}
}

// explainer is what answers: the policy in force, and the node.
func explainer(o Options, f inForce) explain.Node {
	n := newNode(o, discard())
	records, recordsErr := n.Records()
	optedOut, optedOutErr := n.OptedOut()
	bypassing, _ := n.Bypassing() // the same records
	e := explain.Node{
		Policy: f.policy, Config: f.config, ConfigErr: f.configErr, Host: o.HostRoot,
		Attachments: records, OptedOut: optedOut, Bypassing: bypassing, RecordsErr: errors.Join(recordsErr, optedOutErr),
	}
	e.Addresses, e.AddressesErr = node.SourceAddresses(f.policy, records)
	switch f.origin {
	case OriginLastGood, OriginPersisted, OriginElsewhere:
		e.PolicyFile = n.PolicyFile()
	case OriginConfig, OriginPartial, OriginDefaults, OriginFallback:
	}
	listed, _ := o.Cache.List() // for names: a node without a cache has none
	for _, entry := range listed.Entries {
		e.Runtime = append(e.Runtime, entry.Attachment)
		if entry.OptedOut(f.policy.Settings.PodAnnotations) && !n.OnRecord(entry.ID()) {
			e.OptedOut = append(e.OptedOut, entry.Attachment)
		}
	}
	b, decision, err := n.InUse()
	e.Backend, e.BackendErr, e.Features = b, err, decision.Features
	return e
}

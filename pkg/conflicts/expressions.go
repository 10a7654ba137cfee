package conflicts

import (
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/google/nftables/xt"
)

// reading is a rule of nf_tables while its expressions are read one by one, with what the registers hold.
type reading struct {
	rule
	registers map[uint32]field
	words     []string
}

// fromExpressions reads a rule as the kernel holds it, native or written by iptables-nft.
func fromExpressions(table *nftables.Table, r *nftables.Rule) rule {
	read := reading{registers: map[uint32]field{}}
	read.match.family = familyOf(table)
	for _, e := range r.Exprs {
		read.expression(e)
	}
	if comment, ok := userdata.GetString(r.UserData, userdata.TypeComment); ok {
		read.comment = strings.TrimRight(comment, "\x00")
	}
	if read.comment != "" {
		read.say("comment %q", read.comment)
	}
	read.text = strings.Join(read.words, " ")
	return read.rule
}

func (r *reading) say(format string, args ...any) {
	r.words = append(r.words, fmt.Sprintf(format, args...))
}

// beyond notes a condition that is not understood.
func (r *reading) beyond() {
	r.match.other = true
	if len(r.words) == 0 || r.words[len(r.words)-1] != "..." {
		r.say("...")
	}
}

func (r *reading) expression(e expr.Any) {
	switch e := e.(type) {
	case *expr.Counter, *expr.Log, *expr.Immediate:
	case *expr.Meta, *expr.Payload, *expr.Fib, *expr.Bitwise:
		r.load(e)
	case *expr.Cmp:
		r.compare(e)
	case *expr.Match:
		r.extension(e)
	case *expr.Verdict:
		r.verdict(e)
	case *expr.Masq:
		r.act(masquerades, "masquerade")
	case *expr.NAT:
		if e.Type == expr.NATTypeSourceNAT {
			r.act(masquerades, "snat")
		}
	case *expr.Target:
		r.rule.act([]string{e.Name, ""})
		r.say("%s", e.Name)
	default:
		r.beyond()
	}
}

func (r *reading) act(a action, word string) {
	r.action = a
	r.say("%s", word)
}

func (r *reading) verdict(v *expr.Verdict) {
	switch v.Kind {
	case expr.VerdictAccept:
		r.act(accepts, "accept")
	case expr.VerdictReturn:
		r.act(returns, "return")
	case expr.VerdictJump:
		r.act(jumps, "jump "+v.Chain)
		r.chain = v.Chain
	case expr.VerdictGoto:
		r.act(jumps, "goto "+v.Chain)
		r.chain = v.Chain
	}
}

// extension reads a match of iptables-nft that has no native form.
func (r *reading) extension(m *expr.Match) {
	switch info := m.Info.(type) {
	case *xt.Comment:
		r.comment = string(*info)
	case *xt.AddrTypeV1:
		r.addressType(info)
	default:
		if !r.mark(m) {
			r.beyond()
		}
	}
}

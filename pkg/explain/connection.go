package explain

import (
	"github.com/ip-masq/ip-masq-cni/pkg/conntrack"
)

// tracked is a connection of the kernel's table: as it was called, and as it is answered.
type tracked struct{ call, answer conntrack.Tuple }

// connections are those that the question is about. The table may hold a million others, which the kernel leaves out where it can.
func connections(q Question) (found []tracked, err error) {
	table, err := conntrack.Open()
	if err != nil {
		return nil, err
	}
	defer table.Close()
	err = table.From(q.Source, func(f *conntrack.Flow) {
		if c := (tracked{f.Original, f.Reply}); q.isAbout(c) {
			found = append(found, c)
		}
	})
	return found, err
}

func (q Question) isAbout(c tracked) bool {
	return c.call.Src.Addr() == q.Source && c.call.Dst.Addr() == q.Destination &&
		(q.Port == 0 || c.call.Dst.Port() == q.Port) &&
		(q.Protocol == "" || c.call.Proto == protocols[q.Protocol])
}

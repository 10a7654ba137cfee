// Package portbudget measures how many of a node's source ports are taken. Behind one address, connections to one destination
// differ by their source port alone, so there are about 64,000 of them; when they run out, new ones fail by a timeout.
//
// It refuses to count what does not use up ports: connections that keep the pod's address, ICMP, and ports outside the range that
// masquerading picks from. The node's own connections are not counted either, although they take ports, too: they are few, and
// the kernel would have to list every connection of the node for them.
package portbudget

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/conntrack"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Report is one sample.
type Report struct {
	Time         time.Time     `json:"time"`
	Connections  int           `json:"connections"`  // whose source is translated
	Highest      float64       `json:"highest"`      // the share of its ports that the busiest destination takes
	Above        [3]int        `json:"-"`            // destinations that take more than the share of Levels
	Destinations []Destination `json:"destinations"` // the busiest first, Busiest of them at most
	Took         time.Duration `json:"-"`            // CPU
}

// Levels are the shares above which destinations are counted.
var Levels = [3]float64{0.5, 0.8, 0.95}

// Busiest is how many destinations a report names, and how many pods of each.
const Busiest = 10

// Destination is one that connections share source ports towards.
type Destination struct {
	Proto      string     `json:"proto"`
	Translated netip.Addr `json:"translatedSrc"`
	// Pool are the source addresses that share the budget, Translated first, where the policy chooses several.
	Pool    []netip.Addr `json:"translatedPool,omitempty"`
	Dst     netip.Addr   `json:"dst"`
	DstPort uint16       `json:"dstPort"`
	Taken   int          `json:"taken"`
	Usable  int          `json:"usable"`
	Share   float64      `json:"share"`
	Pods    []Pod        `json:"pods"` // that take most of them
}

// Pod is who takes ports. Its name is empty where only the address is known.
type Pod struct {
	attachment.Pod
	Src   netip.Addr `json:"src"`
	Taken int        `json:"taken"`
}

// protocols have ports.
var protocols = map[uint8]string{
	unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_SCTP: "sctp", unix.IPPROTO_DCCP: "dccp", unix.IPPROTO_UDPLITE: "udplite",
}

// The ports that the kernel picks from where no range is set (nf_nat_l4proto_unique_tuple). A client's port below that is replaced
// by another one below it, which is no part of the budget.
const firstUsable = 1024

// Usable returns the ports that masquerading picks from, in order and without overlaps.
func Usable(ranges policy.PortRanges) policy.PortRanges {
	if len(ranges) == 0 {
		return policy.PortRanges{{First: firstUsable, Last: 65535}}
	}
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, func(a, b policy.PortRange) int { return cmp.Compare(a.First, b.First) })
	merged := sorted[:1]
	for _, r := range sorted[1:] {
		last := &merged[len(merged)-1]
		if int(r.First) <= int(last.Last)+1 {
			last.Last = max(last.Last, r.Last)
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

func contains(ranges policy.PortRanges, port uint16) bool {
	for _, r := range ranges {
		if r.First <= port && port <= r.Last {
			return true
		}
	}
	return false
}

// place is what connections share ports towards. It holds no pointer, so that the garbage collector leaves the table alone.
type place struct {
	translated, to [16]byte
	port           uint16
	proto          uint8
}

// use is one connection, by the numbers of its destination and of its source.
type use struct{ place, source int32 }

// Sampler takes samples. Its memory is kept from one to the next. It is not for concurrent use.
type Sampler struct {
	table   *conntrack.Table
	places  map[place]int32
	names   []place
	pools   [][]netip.Addr // of the names; nil for what is in none
	taken   []int32
	sources map[netip.Addr]int32
	pods    []netip.Addr
	uses    []use
}

// NewSampler opens a socket in the network namespace of the calling thread.
func NewSampler() (*Sampler, error) {
	table, err := conntrack.Open()
	if err != nil {
		return nil, err
	}
	return &Sampler{table: table, places: map[place]int32{}, sources: map[netip.Addr]int32{}}, nil
}

// Close closes the socket.
func (s *Sampler) Close() { s.table.Close() }

// Pools returns the source addresses that connections to a destination are spread over, none where that is the kernel's choice.
type Pools func(destination netip.Addr) []netip.Addr

// Sample lists the table once. The addresses of a pool share a budget, which is the sum of theirs; pools may be nil.
func (s *Sampler) Sample(ports policy.PortRanges, pools Pools) (Report, error) {
	began := threadTime()
	usable := Usable(ports)
	s.reset()
	connections := 0
	err := s.table.Translated(func(f *conntrack.Flow) {
		connections++
		if _, ok := protocols[f.Original.Proto]; ok && contains(usable, f.Reply.Dst.Port()) {
			s.add(f)
		}
	})
	if err != nil {
		return Report{}, err
	}
	if pools != nil {
		s.join(pools)
	}
	r := s.report(usable.Size())
	r.Time, r.Connections, r.Took = time.Now(), connections, threadTime()-began
	return r, nil
}

func (s *Sampler) reset() {
	clear(s.places)
	clear(s.sources)
	s.names, s.pools, s.taken, s.pods, s.uses = s.names[:0], s.pools[:0], s.taken[:0], s.pods[:0], s.uses[:0]
}

func (s *Sampler) add(f *conntrack.Flow) {
	key := place{f.Reply.Dst.Addr().As16(), f.Reply.Src.Addr().As16(), f.Reply.Src.Port(), f.Original.Proto}
	number, known := s.places[key]
	if !known {
		number = int32(len(s.names)) //nolint:gosec // fewer than connections
		s.places[key] = number
		s.names, s.taken = append(s.names, key), append(s.taken, 0)
	}
	s.taken[number]++
	source, known := s.sources[f.Original.Src.Addr()]
	if !known {
		source = int32(len(s.pods)) //nolint:gosec // fewer than connections
		s.sources[f.Original.Src.Addr()] = source
		s.pods = append(s.pods, f.Original.Src.Addr())
	}
	s.uses = append(s.uses, use{number, source})
}

// join makes one of the places that differ by their source address alone and are of one pool.
func (s *Sampler) join(pools Pools) {
	joined := make([]int32, len(s.names))
	clear(s.places)
	names, taken := s.names, s.taken
	s.names, s.taken = nil, nil
	for i, name := range names {
		pool := pools(netip.AddrFrom16(name.to).Unmap())
		if len(pool) > 1 && slices.Contains(pool, netip.AddrFrom16(name.translated).Unmap()) {
			name.translated = pool[0].As16()
		} else {
			pool = nil
		}
		number, known := s.places[name]
		if !known {
			number = int32(len(s.names)) //nolint:gosec // fewer than connections
			s.places[name] = number
			s.names, s.taken, s.pools = append(s.names, name), append(s.taken, 0), append(s.pools, pool)
		}
		s.taken[number] += taken[i]
		joined[i] = number
	}
	for i := range s.uses {
		s.uses[i].place = joined[s.uses[i].place]
	}
}

// report names the busiest.
func (s *Sampler) report(usable int) Report {
	r := Report{Destinations: []Destination{}}
	var busiest []int32
	for number := range s.names {
		d := s.destination(int32(number), usable) //nolint:gosec // an index
		r.Highest = max(r.Highest, d.Share)
		for i, level := range Levels {
			if d.Share > level {
				r.Above[i]++
			}
		}
		at, _ := slices.BinarySearchFunc(r.Destinations, d, busier)
		if at < Busiest {
			r.Destinations = slices.Insert(r.Destinations, at, d)
			busiest = slices.Insert(busiest, at, int32(number)) //nolint:gosec // an index
			r.Destinations = r.Destinations[:min(Busiest, len(r.Destinations))]
			busiest = busiest[:len(r.Destinations)]
		}
	}
	for i, pods := range s.podsOf(busiest) {
		r.Destinations[i].Pods = pods
	}
	return r
}

// busier sorts by share, and what has the same share by name, so that a report does not flicker.
func busier(a, b Destination) int {
	return cmp.Or(cmp.Compare(b.Share, a.Share), a.Dst.Compare(b.Dst), cmp.Compare(a.DstPort, b.DstPort), cmp.Compare(a.Proto, b.Proto), a.Translated.Compare(b.Translated))
}

func (s *Sampler) destination(number int32, usable int) Destination {
	name := s.names[number]
	d := Destination{
		Proto: protocols[name.proto], Translated: netip.AddrFrom16(name.translated).Unmap(),
		Dst: netip.AddrFrom16(name.to).Unmap(), DstPort: name.port, Taken: int(s.taken[number]),
	}
	if len(s.pools) > 0 {
		d.Pool = s.pools[number]
	}
	d.Usable = usable * max(1, len(d.Pool))
	d.Share = min(1, float64(d.Taken)/float64(d.Usable))
	return d
}

// podsOf counts who uses the given destinations.
func (s *Sampler) podsOf(places []int32) [][]Pod {
	position := map[int32]int{}
	counts := make([]map[int32]int, len(places))
	for i, number := range places {
		position[number], counts[i] = i, map[int32]int{}
	}
	for _, u := range s.uses {
		if i, ok := position[u.place]; ok {
			counts[i][u.source]++
		}
	}
	all := make([][]Pod, len(places))
	for i := range places {
		all[i] = []Pod{}
		for source, taken := range counts[i] {
			all[i] = append(all[i], Pod{Src: s.pods[source], Taken: taken})
		}
		slices.SortFunc(all[i], func(a, b Pod) int { return cmp.Or(cmp.Compare(b.Taken, a.Taken), a.Src.Compare(b.Src)) })
		all[i] = all[i][:min(Busiest, len(all[i]))]
	}
	return all
}

// How often samples are taken: by themselves every 15 s, when somebody asks every second, and never so often that they take more
// than 0.5 % of one core, which is 200 times the CPU of one, and some more because one is not like the next.
const (
	interval = 15 * time.Second
	shortest = time.Second
	costs    = 220
)

// Next returns how long to wait for the next sample where nobody asks.
func (r Report) Next() time.Duration { return max(interval, costs*r.Took) }

// Fresh reports whether a sample is too young for another one.
func (r Report) Fresh() bool { return time.Since(r.Time) < max(shortest, costs*r.Took) }

// threadTime is the CPU that the calling thread used, of which the kernel's part is most of a sample.
func threadTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_THREAD, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

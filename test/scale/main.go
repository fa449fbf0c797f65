// Command scale says which part of a broker breaks first as a community grows: a model
// of processors, memory, network and connections with constants that `make
// bench-broker` measures. docs/scale.md says where to move then, and how.
//
//	go run ./test/scale -cores 4 -memory 8 -bans 200
package main

import (
	"flag"
	"os"
)

func main() {
	c := community{}
	m := machine{}
	flag.IntVar(&c.perOperator, "agents-per-operator", 2, "agents of one operator")
	flag.IntVar(&c.follow, "follow", 1000, "operators that an agent follows at most")
	flag.IntVar(&c.topics, "topics", 10, "topics of one operator")
	flag.IntVar(&c.live, "live", 40, "bans in force in one feed")
	flag.Float64Var(&c.perDay, "bans", 100, "bans of one operator in a day")
	flag.Float64Var(&m.cores, "cores", 4, "processors of a server")
	memory := flag.Float64("memory", 8, "memory of a server, in GB")
	network := flag.Float64("network", 1000, "what a server may send, in Mbit/s")
	flag.Float64Var(&m.connections, "connections", 10_000, "connections that a server takes: the limit of docs/broker.md, the open files of the others")
	flag.Parse()
	m.memory, m.network = *memory*1e9, *network*1e6
	report(os.Stdout, c, m)
}

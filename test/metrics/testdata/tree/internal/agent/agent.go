package main

type agent struct{ name string }

type server struct {
	a *agent
}

type wired struct {
	name func() string
}

func long() {
	println(1)
	println(2)
	println(3)
	println(4)
	println(5)
	println(6)
	println(7)
	println(8)
	println(9)
	println(10)
	println(11)
	println(12)
	println(13)
	println(14)
	println(15)
	println(16)
	println(17)
	println(18)
	println(19)
	println(20)
	println(21)
	println(22)
	println(23)
	println(24)
	println(25)
	println(26)
	println(27)
	println(28)
	println(29)
	println(30)
	println(31)
	println(32)
	println(33)
	println(34)
	println(35)
	println(36)
	println(37)
	println(38)
	println(39)
	println(40)
	println(41)
	println(42)
	println(43)
	println(44)
	println(45)
	println(46)
	println(47)
	println(48)
	println(49)
	println(50)
	println(51)
	println(52)
	println(53)
	println(54)
	println(55)
	println(56)
	println(57)
	println(58)
	println(59)
	println(60)
}

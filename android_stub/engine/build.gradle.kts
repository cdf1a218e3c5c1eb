// NOT RUN HERE, see settings.gradle.kts.
plugins { `java-library` }
java { sourceCompatibility = JavaVersion.VERSION_1_8; targetCompatibility = JavaVersion.VERSION_1_8 }
dependencies {
    api(project(":core"))
    api("org.bytedeco:tensorflow-lite:2.20.0-1.5.13")
}

// NOT RUN HERE, see settings.gradle.kts.
plugins { id("com.android.application") version "8.7.3" }
android {
    namespace = "flmobile.app"
    compileSdk = 34
    defaultConfig {
        minSdk = 26
        targetSdk = 34
        ndk { abiFilters += listOf("arm64-v8a", "x86_64") }
    }
    compileOptions { sourceCompatibility = JavaVersion.VERSION_1_8; targetCompatibility = JavaVersion.VERSION_1_8 }
    sourceSets["main"].manifest.srcFile("src/main/AndroidManifest.xml")
    buildTypes {
        release { isMinifyEnabled = true; proguardFiles("proguard.pro") }
    }
    packaging {
        resources.excludes += "META-INF/**"
        jniLibs.useLegacyPackaging = false
    }
    androidResources { noCompress += "tflite" }
}
dependencies {
    implementation(project(":engine"))
    compileOnly("org.codehaus.mojo:animal-sniffer-annotations:1.28")
    for (platform in listOf("android-arm64", "android-x86_64")) {
        runtimeOnly("org.bytedeco:tensorflow-lite:2.20.0-1.5.13:$platform")
        runtimeOnly("org.bytedeco:javacpp:1.5.13:$platform")
    }
}
